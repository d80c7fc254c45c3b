// SPDX-License-Identifier: Apache-2.0
//! Failpoints of real processes, in a build that has them: what no signal and no link can hit.

mod panics;
mod protocol;
mod waits;
