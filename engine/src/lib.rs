// SPDX-License-Identifier: Apache-2.0
//! The storage engine of Cairn: pages, trees, the write-ahead log.
