// SPDX-License-Identifier: Apache-2.0
//! Revisions, the key index, transactions, compaction, watch history, hashes.
