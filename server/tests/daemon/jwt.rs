// SPDX-License-Identifier: Apache-2.0
//! JSON web tokens as callers and operators meet them.
//!
//! Owns      how long a token is good, and what ends it.
//! Never     knows how a token is signed: `cairn::jwt` tests that.

use crate::{
    certs::files,
    support::{Daemon, assert_hidden, run, run_to_end, until},
};
use cairn_proto::etcdserverpb::{self as pb, auth_client::AuthClient};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use std::path::Path;
use tonic::{Request, transport::Channel};

/// Writes a key pair, and gives the options for both halves.
fn keys(dir: &Path) -> (String, String) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let files = files(dir);
    (
        format!("priv-key={}", files.put("jwt.key", pair.serialize_pem())),
        format!("pub-key={}", files.put("jwt.pub", pair.public_key_pem())),
    )
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("a header"));
    request
}

/// Root with a password, and authentication on.
async fn enable(auth: &mut AuthClient<Channel>) {
    let add = pb::AuthUserAddRequest { name: "root".into(), password: "p".into(), ..Default::default() };
    auth.user_add(add).await.expect("added");
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.expect("added");
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    auth.user_grant_role(grant).await.expect("granted");
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("enabled");
}

async fn log_in(auth: &mut AuthClient<Channel>) -> Result<String, tonic::Status> {
    let login = pb::AuthenticateRequest { name: "root".into(), password: "p".into() };
    Ok(auth.authenticate(login).await?.into_inner().token)
}

/// What a put under a token comes to.
async fn put(daemon: &Daemon, token: &str) -> Result<(), (u32, String)> {
    let put = with(token, pb::PutRequest { key: "k".into(), ..Default::default() });
    let answer = daemon.kv().await.put(put).await;
    answer.map(|_| ()).map_err(|status| (status.code() as u32, status.message().to_owned()))
}

const OLD: &str = "etcdserver: revision of auth store is old";
const INVALID: &str = "etcdserver: invalid auth token";

// rule: AU-26
#[test]
fn a_token_is_good_until_rights_change_or_it_ends_and_over_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (private, public) = keys(dir.path());
    let flag = |ttl: &str| format!("--auth-token=jwt,sign-method=ES256,{private},{public},ttl={ttl}");
    let daemon = Daemon::start(&["--bcrypt-cost=4", &flag("5m")]);
    assert!(!daemon.has_said("simple token is not cryptographically signed"));
    let token = run(async {
        let mut auth = AuthClient::new(daemon.channel().await);
        enable(&mut auth).await;
        let old = log_in(&mut auth).await.expect("logged in");
        assert_eq!(old.split('.').count(), 3, "{old}");
        assert_eq!(put(&daemon, &old).await, Ok(()));
        let add = pb::AuthUserAddRequest { name: "alice".into(), password: "p".into(), ..Default::default() };
        auth.user_add(with(&old, add)).await.expect("added");
        assert_eq!(put(&daemon, &old).await, Err((3, OLD.into())), "rights have changed");
        let token = log_in(&mut auth).await.expect("logged in again");
        assert_eq!(put(&daemon, &token).await, Ok(()));
        let mut false_one = token.clone();
        false_one.pop();
        assert_eq!(put(&daemon, &false_one).await, Err((16, INVALID.into())));
        token
    });
    let daemon = Daemon::start_in(daemon.stop(), &["--bcrypt-cost=4", &flag("1s")]);
    run(async {
        assert_eq!(put(&daemon, &token).await, Ok(()), "nobody has to remember it");
        let short = log_in(&mut AuthClient::new(daemon.channel().await)).await.expect("logged in");
        until(async || {
            let told = put(&daemon, &short).await;
            assert!(matches!(&told, Ok(()) | Err((16, _))), "{told:?}");
            told.is_err().then_some(())
        })
        .await;
    });
}

// rule: AU-27
#[test]
fn who_has_the_public_key_alone_takes_tokens_and_gives_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let (private, public) = keys(dir.path());
    let signing = format!("--auth-token=jwt,sign-method=ES256,{private}");
    let daemon = Daemon::start(&["--bcrypt-cost=4", &signing]);
    let token = run(async {
        let mut auth = AuthClient::new(daemon.channel().await);
        enable(&mut auth).await;
        log_in(&mut auth).await.expect("logged in")
    });
    let verifying = format!("--auth-token=jwt,sign-method=ES256,{public}");
    let daemon = Daemon::start_in(daemon.stop(), &["--bcrypt-cost=4", &verifying]);
    run(async {
        assert_eq!(put(&daemon, &token).await, Ok(()));
        let refused = log_in(&mut AuthClient::new(daemon.channel().await)).await.expect_err("it cannot sign");
        assert_eq!(
            (refused.code() as u32, refused.message()),
            (2, "auth: token signing attempted with verify-only key")
        );
        let mut lease = daemon.lease().await;
        let grant = with(&token, pb::LeaseGrantRequest { ttl: 1, id: 7 });
        lease.lease_grant(grant).await.expect("granted");
        until(async || {
            let leases = daemon.lease().await.lease_leases(with(&token, pb::LeaseLeasesRequest {})).await;
            leases.expect("listed").into_inner().leases.is_empty().then_some(())
        })
        .await;
    });
}

// rule: AU-28
#[test]
fn keys_that_cannot_be_used_stop_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (private, public) = keys(dir.path());
    let other = tempfile::tempdir().expect("a directory");
    let (_, foreign) = keys(other.path());
    for (options, why) in [
        ("sign-method=ES256".to_owned(), "auth: missing key data"),
        (format!("sign-method=ES256,{private},{foreign}"), "auth: public and private keys don't match"),
        (format!("sign-method=RS256,{private}"), "no private key for RS256 in PEM"),
        (format!("sign-method=HS256,{public}"), "auth: missing key data"),
        ("sign-method=ES256,priv-key=absent".into(), "cannot read absent"),
    ] {
        let flag = format!("--auth-token=jwt,{options}");
        let flags = [
            &flag,
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
            "--listen-peer-urls=http://127.0.0.1:0",
        ];
        let (status, _, said) = run_to_end(&flags, dir.path());
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn changed_keys_are_taken_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (private, _) = keys(dir.path());
    let flag = format!("--auth-token=jwt,sign-method=ES256,{private}");
    let mut daemon = Daemon::start(&["--bcrypt-cost=4", &flag]);
    run(async {
        let mut auth = AuthClient::new(daemon.channel().await);
        enable(&mut auth).await;
        let old = log_in(&mut auth).await.expect("logged in");
        keys(dir.path());
        until(async || put(&daemon, &old).await.is_err().then_some(())).await;
        let fresh = log_in(&mut auth).await.expect("logged in");
        assert_eq!(put(&daemon, &fresh).await, Ok(()));
    });
    daemon.wait_for("loaded changed keys of tokens");
}

#[test]
fn s11_tokens_and_keys_are_in_no_line_of_the_log_and_in_no_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = files(dir.path());
    let secret = "a key that is to be seen nowhere";
    let flag = format!("--auth-token=jwt,sign-method=HS256,priv-key={}", files.put("secret", secret));
    let daemon = Daemon::start(&["--bcrypt-cost=4", "--log-level=debug", &flag]);
    let token = run(async {
        let mut auth = AuthClient::new(daemon.channel().await);
        enable(&mut auth).await;
        let token = log_in(&mut auth).await.expect("logged in");
        assert_eq!(put(&daemon, &token).await, Ok(()));
        assert!(put(&daemon, &format!("{token}x")).await.is_err());
        token
    });
    let mut daemon = daemon;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait();
    let signature = token.rsplit('.').next().expect("three parts");
    assert_hidden(&daemon.everything(&[]), &[secret, &token, signature]);
}
