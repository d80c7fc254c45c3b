// SPDX-License-Identifier: Apache-2.0
//! One member of Cairn as two pure machines: replica and state.
