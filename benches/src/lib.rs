// SPDX-License-Identifier: Apache-2.0
//! Criterion benches of the engine.
