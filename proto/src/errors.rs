// SPDX-License-Identifier: Apache-2.0
//! Every text and code that a client may compare: the rows of `tests/rules/errors.tsv`.
//!
//! Owns      the wording. A client finds its error by text as often as by code, so nothing else in this
//!           repository writes one of these sentences down.
//! Holds     the table equals the rules' page, row by row and both ways (`tests/rules/errors.rs`).
//! Never     decides when an error is given.

use std::fmt;

/// One answer that is not a result: what a client sees of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WireError {
    /// The server symbol of the rules' page, for logs and tests.
    pub symbol: &'static str,
    /// The gRPC status code *on the wire*, which for a few differs from the declared one. [`NO_STATUS`]
    /// where the text travels inside a response or is made by a client.
    pub code: u32,
    /// The exact text. Upper-case words of a few [`Kind::Transport`] texts stand for values.
    pub text: &'static str,
}

/// The code of a text that is not a status.
pub const NO_STATUS: u32 = 0;

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for WireError {}

/// Where a text is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A status with a code of its own.
    Mapped,
    /// A status without one: Unknown on the wire.
    Unmapped,
    /// Made by the lock and election services, always Unknown.
    LockElection,
    /// The caller's deadline or cancellation.
    Context,
    RangeStream,
    /// `WatchResponse.cancel_reason`.
    CancelReason,
    /// An entry of `StatusResponse.errors`.
    StatusErrors,
    /// Made below the services.
    Transport,
    /// Made by the Go client; no server sends it.
    ClientOnly,
    /// Texts on which the Go client repeats a write; no server may send them.
    ClientRetry,
}

impl Kind {
    /// The word of the rules' page.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Mapped => "rpctypes",
            Kind::Unmapped => "unmapped",
            Kind::LockElection => "lock/election",
            Kind::Context => "context",
            Kind::RangeStream => "range-stream",
            Kind::CancelReason => "watch cancel_reason",
            Kind::StatusErrors => "status.errors",
            Kind::Transport => "transport",
            Kind::ClientOnly => "client only",
            Kind::ClientRetry => "client retry",
        }
    }
}

macro_rules! table {
    ($($name:ident: $kind:ident, $symbol:literal, $code:literal, $text:literal;)*) => {
        $(
            #[doc = concat!("`", $text, "` (", stringify!($kind), ")")]
            pub const $name: WireError = WireError { symbol: $symbol, code: $code, text: $text };
        )*

        /// All of them, in the order of the rules' page.
        pub const ALL: &[(Kind, WireError)] = &[$((Kind::$kind, $name),)*];
    };
}

table! {
    EMPTY_KEY: Mapped, "ErrGRPCEmptyKey", 3, "etcdserver: key is not provided";
    KEY_NOT_FOUND: Mapped, "ErrGRPCKeyNotFound", 3, "etcdserver: key not found";
    VALUE_PROVIDED: Mapped, "ErrGRPCValueProvided", 3, "etcdserver: value is provided";
    LEASE_PROVIDED: Mapped, "ErrGRPCLeaseProvided", 3, "etcdserver: lease is provided";
    TOO_MANY_OPS: Mapped, "ErrGRPCTooManyOps", 3, "etcdserver: too many operations in txn request";
    DUPLICATE_KEY: Mapped, "ErrGRPCDuplicateKey", 3, "etcdserver: duplicate key given in txn request";
    INVALID_CLIENT_API_VERSION: Mapped, "ErrGRPCInvalidClientAPIVersion", 3, "etcdserver: invalid client api version";
    INVALID_SORT_OPTION: Mapped, "ErrGRPCInvalidSortOption", 3, "etcdserver: invalid sort option";
    COMPACTED: Mapped, "ErrGRPCCompacted", 11, "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REV: Mapped, "ErrGRPCFutureRev", 11, "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE: Mapped, "ErrGRPCNoSpace", 8, "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND: Mapped, "ErrGRPCLeaseNotFound", 5, "etcdserver: requested lease not found";
    LEASE_EXIST: Mapped, "ErrGRPCLeaseExist", 9, "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE: Mapped, "ErrGRPCLeaseTTLTooLarge", 11, "etcdserver: too large lease TTL";
    WATCH_CANCELED: Mapped, "ErrGRPCWatchCanceled", 1, "etcdserver: watch canceled";
    MEMBER_EXIST: Mapped, "ErrGRPCMemberExist", 9, "etcdserver: member ID already exist";
    PEER_URL_EXIST: Mapped, "ErrGRPCPeerURLExist", 9, "etcdserver: Peer URLs already exists";
    MEMBER_NOT_ENOUGH_STARTED: Mapped, "ErrGRPCMemberNotEnoughStarted", 2, "etcdserver: re-configuration failed due to not enough started members";
    MEMBER_BAD_URLS: Mapped, "ErrGRPCMemberBadURLs", 3, "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND: Mapped, "ErrGRPCMemberNotFound", 5, "etcdserver: member not found";
    MEMBER_NOT_LEARNER: Mapped, "ErrGRPCMemberNotLearner", 9, "etcdserver: can only promote a learner member";
    LEARNER_NOT_READY: Mapped, "ErrGRPCLearnerNotReady", 9, "etcdserver: can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS: Mapped, "ErrGRPCTooManyLearners", 9, "etcdserver: too many learner members in cluster";
    CLUSTER_ID_MISMATCH: Mapped, "ErrGRPCClusterIDMismatch", 9, "etcdserver: cluster ID mismatch";
    REQUEST_TOO_LARGE: Mapped, "ErrGRPCRequestTooLarge", 3, "etcdserver: request is too large";
    REQUEST_TOO_MANY_REQUESTS: Mapped, "ErrGRPCRequestTooManyRequests", 2, "etcdserver: too many requests";
    ROOT_USER_NOT_EXIST: Mapped, "ErrGRPCRootUserNotExist", 9, "etcdserver: root user does not exist";
    ROOT_ROLE_NOT_EXIST: Mapped, "ErrGRPCRootRoleNotExist", 9, "etcdserver: root user does not have root role";
    USER_ALREADY_EXIST: Mapped, "ErrGRPCUserAlreadyExist", 9, "etcdserver: user name already exists";
    USER_EMPTY: Mapped, "ErrGRPCUserEmpty", 3, "etcdserver: user name is empty";
    USER_NOT_FOUND: Mapped, "ErrGRPCUserNotFound", 9, "etcdserver: user name not found";
    ROLE_ALREADY_EXIST: Mapped, "ErrGRPCRoleAlreadyExist", 9, "etcdserver: role name already exists";
    ROLE_NOT_FOUND: Mapped, "ErrGRPCRoleNotFound", 9, "etcdserver: role name not found";
    ROLE_EMPTY: Mapped, "ErrGRPCRoleEmpty", 3, "etcdserver: role name is empty";
    AUTH_FAILED: Mapped, "ErrGRPCAuthFailed", 3, "etcdserver: authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN: Mapped, "ErrGRPCPermissionNotGiven", 3, "etcdserver: permission not given";
    PERMISSION_DENIED: Mapped, "ErrGRPCPermissionDenied", 7, "etcdserver: permission denied";
    ROLE_NOT_GRANTED: Mapped, "ErrGRPCRoleNotGranted", 9, "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED: Mapped, "ErrGRPCPermissionNotGranted", 9, "etcdserver: permission is not granted to the role";
    AUTH_NOT_ENABLED: Mapped, "ErrGRPCAuthNotEnabled", 9, "etcdserver: authentication is not enabled";
    INVALID_AUTH_TOKEN: Mapped, "ErrGRPCInvalidAuthToken", 16, "etcdserver: invalid auth token";
    INVALID_AUTH_MGMT: Mapped, "ErrGRPCInvalidAuthMgmt", 3, "etcdserver: invalid auth management";
    AUTH_OLD_REVISION: Mapped, "ErrGRPCAuthOldRevision", 3, "etcdserver: revision of auth store is old";
    NO_LEADER: Mapped, "ErrGRPCNoLeader", 14, "etcdserver: no leader";
    NOT_LEADER: Mapped, "ErrGRPCNotLeader", 9, "etcdserver: not leader";
    LEADER_CHANGED: Mapped, "ErrGRPCLeaderChanged", 14, "etcdserver: leader changed";
    NOT_CAPABLE: Mapped, "ErrGRPCNotCapable", 9, "etcdserver: not capable";
    STOPPED: Mapped, "ErrGRPCStopped", 14, "etcdserver: server stopped";
    TIMEOUT: Mapped, "ErrGRPCTimeout", 14, "etcdserver: request timed out";
    TIMEOUT_DUE_TO_LEADER_FAIL: Mapped, "ErrGRPCTimeoutDueToLeaderFail", 14, "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_DUE_TO_CONNECTION_LOST: Mapped, "ErrGRPCTimeoutDueToConnectionLost", 14, "etcdserver: request timed out, possibly due to connection lost";
    TIMEOUT_WAIT_APPLIED_INDEX: Mapped, "ErrGRPCTimeoutWaitAppliedIndex", 14, "etcdserver: request timed out, waiting for the applied index took too long";
    UNHEALTHY: Mapped, "ErrGRPCUnhealthy", 14, "etcdserver: unhealthy cluster";
    CORRUPT: Mapped, "ErrGRPCCorrupt", 15, "etcdserver: corrupt cluster";
    NOT_SUPPORTED_FOR_LEARNER: Mapped, "ErrGRPCNotSupportedForLearner", 9, "etcdserver: rpc not supported for learner";
    BAD_LEADER_TRANSFEREE: Mapped, "ErrGRPCBadLeaderTransferee", 9, "etcdserver: bad leader transferee";
    WRONG_DOWNGRADE_VERSION_FORMAT: Mapped, "ErrGRPCWrongDowngradeVersionFormat", 3, "etcdserver: wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET_VERSION: Mapped, "ErrGRPCInvalidDowngradeTargetVersion", 3, "etcdserver: invalid downgrade target version";
    CLUSTER_VERSION_UNAVAILABLE: Mapped, "ErrGRPCClusterVersionUnavailable", 9, "etcdserver: cluster version not found during downgrade";
    DOWNGRADE_IN_PROCESS: Mapped, "ErrGRPCDowngradeInProcess", 9, "etcdserver: cluster has a downgrade job in progress";
    NO_INFLIGHT_DOWNGRADE: Mapped, "ErrGRPCNoInflightDowngrade", 9, "etcdserver: no inflight downgrade job";
    CANCELED: Mapped, "ErrGRPCCanceled", 1, "etcdserver: request canceled";
    DEADLINE_EXCEEDED: Mapped, "ErrGRPCDeadlineExceeded", 4, "etcdserver: context deadline exceeded";
    NO_PASSWORD_USER: Unmapped, "auth.ErrNoPasswordUser", 2, "auth: authentication failed, password was given for no password user";
    VERIFY_ONLY: Unmapped, "auth.ErrVerifyOnly", 2, "auth: token signing attempted with verify-only key";
    PASSWORD_TOO_LONG: Unmapped, "bcrypt.ErrPasswordTooLong", 2, "bcrypt: password length exceeds 72 bytes";
    NOT_PRIMARY: Unmapped, "lease.ErrNotPrimary", 2, "not a primary lessor";
    UNKNOWN_METHOD: Unmapped, "errors.ErrUnknownMethod", 2, "etcdserver: unknown method";
    TIMEOUT_LEADER_TRANSFER: Unmapped, "errors.ErrTimeoutLeaderTransfer", 2, "etcdserver: request timed out, leader transfer took too long";
    PROPOSAL_DROPPED: Unmapped, "raft.ErrProposalDropped", 2, "raft proposal dropped";
    RAFT_STOPPED: Unmapped, "raft.ErrStopped", 2, "raft: stopped";
    MEMBER_PROMOTE_UNKNOWN: Unmapped, "-", 2, "member promote: unknown error(BODY)";
    MISSING_LEADER_KEY: LockElection, "ErrMissingLeaderKey", 2, "\"leader\" field must be provided";
    ELECTION_NO_LEADER: LockElection, "concurrency.ErrElectionNoLeader", 2, "election: no leader";
    ELECTION_NOT_LEADER: LockElection, "concurrency.ErrElectionNotLeader", 2, "election: not leader";
    SESSION_EXPIRED: LockElection, "concurrency.ErrSessionExpired", 2, "mutex: session is expired";
    LOST_WATCHER: LockElection, "-", 2, "lost watcher waiting for delete";
    LOCK_LEASE_NOT_FOUND: LockElection, "(any rpctypes text)", 2, "etcdserver: requested lease not found";
    CONTEXT_DEADLINE_EXCEEDED: Context, "context.DeadlineExceeded", 4, "context deadline exceeded";
    CONTEXT_CANCELED: Context, "context.Canceled", 1, "context canceled";
    RANGE_STREAM_SORT: RangeStream, "-", 12, "RangeStream does not support custom sort orders";
    RANGE_STREAM_FILTER: RangeStream, "-", 12, "RangeStream does not support revision filters";
    CANCEL_COMPACTED: CancelReason, "rpctypes.ErrCompacted", 0, "etcdserver: mvcc: required revision has been compacted";
    CANCEL_NO_REASON: CancelReason, "(empty)", 0, "";
    CANCEL_WATCHER_DUPLICATE_ID: CancelReason, "mvcc.ErrWatcherDuplicateID", 0, "mvcc: duplicate watch ID provided on the WatchStream";
    CANCEL_EMPTY_WATCHER_RANGE: CancelReason, "mvcc.ErrEmptyWatcherRange", 0, "mvcc: watcher range is empty";
    CANCEL_PERMISSION_DENIED: CancelReason, "ErrGRPCPermissionDenied", 0, "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    CANCEL_USER_EMPTY: CancelReason, "ErrGRPCUserEmpty", 0, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    CANCEL_INVALID_AUTH_TOKEN: CancelReason, "ErrGRPCInvalidAuthToken", 0, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    CANCEL_AUTH_OLD_REVISION: CancelReason, "ErrGRPCAuthOldRevision", 0, "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old";
    STATUS_NO_LEADER: StatusErrors, "errors.ErrNoLeader", 0, "etcdserver: no leader";
    MESSAGE_TOO_LARGE: Transport, "grpc", 8, "grpc: received message larger than max (N vs. M)";
    UNKNOWN_SERVICE: Transport, "grpc", 12, "unknown service SERVICE";
    UNKNOWN_METHOD_OF_SERVICE: Transport, "grpc", 12, "unknown method METHOD for service SERVICE";
    HEALTH_UNKNOWN_SERVICE: Transport, "grpc health", 5, "unknown service";
    TOO_MANY_PINGS: Transport, "HTTP/2 GOAWAY", 14, "too_many_pings";
    CLIENT_NO_AVAILABLE_ENDPOINTS: ClientOnly, "clientv3.ErrNoAvailableEndpoints", 0, "etcdclient: no available endpoints";
    CLIENT_OLD_CLUSTER: ClientOnly, "clientv3.ErrOldCluster", 0, "etcdclient: old cluster version";
    RETRY_NO_ADDRESS: ClientRetry, "-", 0, "there is no address available";
    RETRY_NO_CONNECTION: ClientRetry, "-", 0, "there is no connection available";
}

/// [`MESSAGE_TOO_LARGE`] with its numbers.
pub fn message_too_large(bytes: usize, bytes_max: usize) -> String {
    MESSAGE_TOO_LARGE.text.replace("N vs. M", &format!("{bytes} vs. {bytes_max}"))
}

/// [`UNKNOWN_SERVICE`] with its name.
pub fn unknown_service(service: &str) -> String {
    UNKNOWN_SERVICE.text.replace("SERVICE", service)
}

/// [`UNKNOWN_METHOD_OF_SERVICE`] with its names.
pub fn unknown_method(method: &str, service: &str) -> String {
    format!("unknown method {method} for service {service}")
}

/// [`MEMBER_PROMOTE_UNKNOWN`] with the leader's answer.
pub fn member_promote_unknown(body: &str) -> String {
    MEMBER_PROMOTE_UNKNOWN.text.replace("BODY", body)
}
