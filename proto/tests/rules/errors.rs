// SPDX-License-Identifier: Apache-2.0
//! The error texts are those of `errors.tsv`, row by row.

use cairn_proto::errors::{self, Kind, WireError};

/// kind, symbol, code on the wire, text
fn page() -> Vec<(&'static str, &'static str, u32, &'static str)> {
    let page = include_str!("../../../tests/rules/errors.tsv");
    page.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            (cells[0], cells[1], code(cells[5]), cells[6])
        })
        .collect()
}

fn code(name: &str) -> u32 {
    match name {
        "-" => errors::NO_STATUS,
        "Canceled" => 1,
        "Unknown" => 2,
        "InvalidArgument" => 3,
        "DeadlineExceeded" => 4,
        "NotFound" => 5,
        "PermissionDenied" => 7,
        "ResourceExhausted" => 8,
        "FailedPrecondition" => 9,
        "OutOfRange" => 11,
        "Unimplemented" => 12,
        "Unavailable" => 14,
        "DataLoss" => 15,
        "Unauthenticated" => 16,
        other => panic!("no code is called {other}"),
    }
}

#[test]
fn the_table_equals_the_rules_page_row_by_row() {
    let table: Vec<_> = errors::ALL.iter().map(|(kind, e)| (kind.name(), e.symbol, e.code, e.text)).collect();
    assert!(table.len() > 90, "the table has {} rows", table.len());
    assert_eq!(table, page());
}

#[test]
fn the_codes_are_those_of_tonic() {
    for (kind, WireError { symbol, code, .. }) in errors::ALL {
        let named = tonic::Code::from_i32(i32::try_from(*code).expect("codes are small"));
        assert_eq!(named as u32, *code, "{symbol}");
        let has_status =
            !matches!(kind, Kind::CancelReason | Kind::StatusErrors | Kind::ClientOnly | Kind::ClientRetry);
        assert_eq!(*code != errors::NO_STATUS, has_status, "{symbol}");
    }
}

#[test]
fn texts_with_values_are_filled_in() {
    assert_eq!(
        errors::message_too_large(3_000_000, 2_097_152),
        "grpc: received message larger than max (3000000 vs. 2097152)"
    );
    assert_eq!(errors::unknown_service("a.B"), "unknown service a.B");
    assert_eq!(errors::unknown_method("SERVICE", "a.B"), "unknown method SERVICE for service a.B");
    assert_eq!(errors::member_promote_unknown("no"), "member promote: unknown error(no)");
}
