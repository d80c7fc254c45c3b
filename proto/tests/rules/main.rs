// SPDX-License-Identifier: Apache-2.0
//! The wire as compiled against the wire as the rules' pages tell it.

mod errors;
mod methods;
mod serve;
mod support;
mod wire;
