// SPDX-License-Identifier: Apache-2.0
//! Conformance, client, crash and process tests of Cairn.
