// SPDX-License-Identifier: Apache-2.0
//! The tasks of this repository: test, full, rules.

fn main() {}
