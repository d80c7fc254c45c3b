// SPDX-License-Identifier: Apache-2.0
//! Ranges, puts and deletes.

use expect_test::expect;

use crate::script::check;

// rule: HDR-1
#[test]
fn an_empty_store_is_at_revision_1() {
    check(
        "revision
         get ..
         put a 1
         get ..",
        expect![[r#"
            revision -> 1 compact -1
            get .. -> rev 1 [] count 0
            put a 1 -> rev 2
            get .. -> rev 2 [a=1(2,2,1)] count 1
        "#]],
    );
}
