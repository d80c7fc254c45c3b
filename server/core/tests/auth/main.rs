// SPDX-License-Identifier: Apache-2.0
//! Users, roles and permissions: as scripts of entries, and against a naive model.

mod model;
mod script;
