// SPDX-License-Identifier: Apache-2.0
//! What goes through the log: one request, and its bytes.
//!
//! Owns      the choice among the fields of `InternalRaftRequest` that this version proposes, and their
//!           encoding, under etcd's field numbers.
//! Holds     the bytes are those that prost writes for the whole message (tested); they are made once, and
//!           are the entry, the record in the log and what goes to peers.
//! Never     decides anything: what depends on a clock, a limit or a draw was put into the request before.

use crate::{
    auth::{Identity, command::AuthCommand},
    version::Version,
};
use bytes::{Bytes, BytesMut};
use cairn_proto::{etcdserverpb as pb, membershippb};
use prost::{Message, encoding};

/// A request that is to be applied on every member.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    /// What a restore leaves at the end of the log: revisions are passed over, and the last of them is compacted. In
    /// the log it is a compaction with one more field.
    Skip {
        by: u64,
    },
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    /// The leader's revoke of a lease that ran out, as it was granted by one entry. In the log it is a
    /// revoke with one more field, which etcd would not look at.
    LeaseEnd {
        id: i64,
        granted_index: u64,
    },
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    Alarm(pb::AlarmRequest),
    ClusterVersion(membershippb::ClusterVersionSetRequest),
    MemberAttributes(membershippb::ClusterMemberAttrSetRequest),
    /// A downgrade of the cluster's version begins, or is over.
    Downgrade(membershippb::DowngradeInfoSetRequest),
    /// What only members of a later version than this one know. They apply it where the cluster is of that version,
    /// which this one cannot be a member of; until then every member passes it over.
    Later {
        since: Version,
    },
    /// What came with the next version.
    #[cfg(feature = "next")]
    Next {
        number: u64,
    },
    /// Rare, and larger than the others.
    Auth(Box<AuthCommand>),
}

/// What a command is, by the names that etcd gives them in its metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandKind {
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    ClusterVersionSet,
    ClusterMemberAttrSet,
    DowngradeInfoSet,
    AuthEnable,
    AuthDisable,
    Authenticate,
    AuthUserAdd,
    AuthUserDelete,
    AuthUserChangePassword,
    AuthUserGrantRole,
    AuthUserRevokeRole,
    AuthRoleAdd,
    AuthRoleDelete,
    AuthRoleGrantPermission,
    AuthRoleRevokePermission,
    Unknown,
}

impl CommandKind {
    /// In the order of their numbers.
    pub const ALL: [CommandKind; 24] = [
        CommandKind::Put,
        CommandKind::DeleteRange,
        CommandKind::Txn,
        CommandKind::Compaction,
        CommandKind::LeaseGrant,
        CommandKind::LeaseRevoke,
        CommandKind::LeaseCheckpoint,
        CommandKind::Alarm,
        CommandKind::ClusterVersionSet,
        CommandKind::ClusterMemberAttrSet,
        CommandKind::DowngradeInfoSet,
        CommandKind::AuthEnable,
        CommandKind::AuthDisable,
        CommandKind::Authenticate,
        CommandKind::AuthUserAdd,
        CommandKind::AuthUserDelete,
        CommandKind::AuthUserChangePassword,
        CommandKind::AuthUserGrantRole,
        CommandKind::AuthUserRevokeRole,
        CommandKind::AuthRoleAdd,
        CommandKind::AuthRoleDelete,
        CommandKind::AuthRoleGrantPermission,
        CommandKind::AuthRoleRevokePermission,
        CommandKind::Unknown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            CommandKind::Put => "Put",
            CommandKind::DeleteRange => "DeleteRange",
            CommandKind::Txn => "Txn",
            CommandKind::Compaction => "Compaction",
            CommandKind::LeaseGrant => "LeaseGrant",
            CommandKind::LeaseRevoke => "LeaseRevoke",
            CommandKind::LeaseCheckpoint => "LeaseCheckpoint",
            CommandKind::Alarm => "Alarm",
            CommandKind::ClusterVersionSet => "ClusterVersionSet",
            CommandKind::ClusterMemberAttrSet => "ClusterMemberAttrSet",
            CommandKind::DowngradeInfoSet => "DowngradeInfoSet",
            CommandKind::AuthEnable => "AuthEnable",
            CommandKind::AuthDisable => "AuthDisable",
            CommandKind::Authenticate => "Authenticate",
            CommandKind::AuthUserAdd => "AuthUserAdd",
            CommandKind::AuthUserDelete => "AuthUserDelete",
            CommandKind::AuthUserChangePassword => "AuthUserChangePassword",
            CommandKind::AuthUserGrantRole => "AuthUserGrantRole",
            CommandKind::AuthUserRevokeRole => "AuthUserRevokeRole",
            CommandKind::AuthRoleAdd => "AuthRoleAdd",
            CommandKind::AuthRoleDelete => "AuthRoleDelete",
            CommandKind::AuthRoleGrantPermission => "AuthRoleGrantPermission",
            CommandKind::AuthRoleRevokePermission => "AuthRoleRevokePermission",
            CommandKind::Unknown => "Unknown",
        }
    }
}

/// Bytes in the log that this version cannot apply. It would go on with another state than its peers, so
/// the member stops.
#[derive(Debug, thiserror::Error)]
pub enum BadCommand {
    #[error("an entry that is no request: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("a request of a kind that this version does not know")]
    Unknown,
}

/// A revoke as it is in the log.
#[derive(Clone, PartialEq, Message)]
struct Revoke {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(uint64, tag = "15")]
    granted_index: u64,
}

/// A compaction as it is in the log.
#[derive(Clone, PartialEq, Message)]
struct Compaction {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
    #[prost(uint64, tag = "15")]
    skip: u64,
}

/// The fields of `InternalRaftRequest` that are looked at twice.
#[derive(Clone, PartialEq, Message)]
struct Wider {
    #[prost(message, optional, tag = "7")]
    compaction: Option<Compaction>,
    #[prost(message, optional, tag = "9")]
    revoke: Option<Revoke>,
    #[prost(message, optional, tag = "15000")]
    gated: Option<Gated>,
}

/// A request that came with a version, as it is in the log. The version stands before it, for members that do not know
/// the request.
#[derive(Clone, PartialEq, Message)]
struct Gated {
    #[prost(uint32, tag = "1")]
    major: u32,
    #[prost(uint32, tag = "2")]
    minor: u32,
}

impl Gated {
    fn since(Version { major, minor }: Version) -> Gated {
        Gated { major, minor }
    }

    fn command(self) -> Command {
        Command::Later { since: Version::new(self.major, self.minor) }
    }
}

mod field {
    pub const PUT: u32 = 4;
    pub const DELETE_RANGE: u32 = 5;
    pub const TXN: u32 = 6;
    pub const COMPACTION: u32 = 7;
    pub const LEASE_GRANT: u32 = 8;
    pub const LEASE_REVOKE: u32 = 9;
    pub const ALARM: u32 = 10;
    pub const LEASE_CHECKPOINT: u32 = 11;
    pub const HEADER: u32 = 100;
    pub const CLUSTER_VERSION_SET: u32 = 1300;
    pub const CLUSTER_MEMBER_ATTR_SET: u32 = 1301;
    pub const DOWNGRADE_INFO_SET: u32 = 1302;
    /// Of Cairn alone.
    pub const GATED: u32 = 15_000;
}

impl Command {
    pub fn kind(&self) -> CommandKind {
        match self {
            Command::Put(_) => CommandKind::Put,
            Command::DeleteRange(_) => CommandKind::DeleteRange,
            Command::Txn(_) => CommandKind::Txn,
            Command::Compact(_) | Command::Skip { .. } => CommandKind::Compaction,
            Command::LeaseGrant(_) => CommandKind::LeaseGrant,
            Command::LeaseRevoke(_) | Command::LeaseEnd { .. } => CommandKind::LeaseRevoke,
            Command::LeaseCheckpoint(_) => CommandKind::LeaseCheckpoint,
            Command::Alarm(_) => CommandKind::Alarm,
            Command::ClusterVersion(_) => CommandKind::ClusterVersionSet,
            Command::MemberAttributes(_) => CommandKind::ClusterMemberAttrSet,
            Command::Downgrade(_) => CommandKind::DowngradeInfoSet,
            Command::Later { .. } => CommandKind::Unknown,
            #[cfg(feature = "next")]
            Command::Next { .. } => CommandKind::Unknown,
            Command::Auth(command) => command.kind(),
        }
    }

    /// Whether it is the leader's own to propose: a deposed one must not have it said by the next (R19).
    pub fn is_leaders(&self) -> bool {
        matches!(self, Command::LeaseEnd { .. } | Command::LeaseCheckpoint(_) | Command::ClusterVersion(_))
    }

    /// The bytes of an `InternalRaftRequest` with this request and this id in its header.
    pub fn encode(&self, request_id: u64) -> Bytes {
        self.encode_by(request_id, None)
    }

    /// As [`Command::encode`], with who asks for it in the header too.
    pub fn encode_by(&self, request_id: u64, by: Option<&Identity>) -> Bytes {
        let mut header = pb::RequestHeader { id: request_id, ..Default::default() };
        if let Some(by) = by {
            header.username = by.user.to_string();
            header.auth_revision = by.revision;
        }
        match self {
            Command::Put(r) => write(field::PUT, r, &header),
            Command::DeleteRange(r) => write(field::DELETE_RANGE, r, &header),
            Command::Txn(r) => write(field::TXN, r, &header),
            Command::Compact(r) => write(field::COMPACTION, r, &header),
            Command::Skip { by } => {
                let skip = Compaction { skip: *by, ..Default::default() };
                write(field::COMPACTION, &skip, &header)
            }
            Command::LeaseGrant(r) => write(field::LEASE_GRANT, r, &header),
            Command::LeaseRevoke(r) => write(field::LEASE_REVOKE, r, &header),
            Command::LeaseEnd { id, granted_index } => {
                let revoke = Revoke { id: *id, granted_index: *granted_index };
                write(field::LEASE_REVOKE, &revoke, &header)
            }
            Command::LeaseCheckpoint(r) => write(field::LEASE_CHECKPOINT, r, &header),
            Command::Alarm(r) => write(field::ALARM, r, &header),
            Command::ClusterVersion(r) => write(field::CLUSTER_VERSION_SET, r, &header),
            Command::MemberAttributes(r) => write(field::CLUSTER_MEMBER_ATTR_SET, r, &header),
            Command::Downgrade(r) => write(field::DOWNGRADE_INFO_SET, r, &header),
            Command::Later { since } => write(field::GATED, &Gated::since(*since), &header),
            #[cfg(feature = "next")]
            Command::Next { number } => write(field::GATED, &crate::next::Gated::new(*number), &header),
            Command::Auth(command) => command.encode(&header),
        }
    }

    /// # Errors
    /// If the bytes are no request, or one of a kind that is never proposed by this version.
    pub fn decode(bytes: Bytes) -> Result<Command, BadCommand> {
        Command::decode_by(bytes).map(|(command, _)| command)
    }

    /// As [`Command::decode`], with who asked for it.
    ///
    /// # Errors
    /// As [`Command::decode`].
    pub fn decode_by(bytes: Bytes) -> Result<(Command, Option<Identity>), BadCommand> {
        let mut r = pb::InternalRaftRequest::decode(bytes.clone())?;
        let header = r.header.take().unwrap_or_default();
        // Revision 0 says that nobody is named (AU-20).
        let by = (header.auth_revision != 0)
            .then(|| Identity { user: header.username.into(), revision: header.auth_revision });
        if let Some(command) = AuthCommand::take(&mut r) {
            return Ok((Command::Auth(Box::new(command)), by));
        }
        let pb::InternalRaftRequest {
            put,
            delete_range,
            txn,
            compaction,
            lease_grant,
            lease_revoke,
            lease_checkpoint,
            alarm,
            cluster_version_set,
            cluster_member_attr_set,
            downgrade_info_set,
            ..
        } = r;
        if lease_revoke.is_some() {
            let Revoke { id, granted_index } = Wider::decode(bytes.clone())?.revoke.unwrap_or_default();
            if granted_index != 0 {
                return Ok((Command::LeaseEnd { id, granted_index }, by));
            }
        } else if compaction.is_some() {
            let Compaction { skip, .. } = Wider::decode(bytes.clone())?.compaction.unwrap_or_default();
            if skip != 0 {
                return Ok((Command::Skip { by: skip }, by));
            }
        }
        let known = None
            .or(put.map(Command::Put))
            .or(delete_range.map(Command::DeleteRange))
            .or(txn.map(Command::Txn))
            .or(compaction.map(Command::Compact))
            .or(lease_grant.map(Command::LeaseGrant))
            .or(lease_revoke.map(Command::LeaseRevoke))
            .or(lease_checkpoint.map(Command::LeaseCheckpoint))
            .or(alarm.map(Command::Alarm))
            .or(cluster_version_set.map(Command::ClusterVersion))
            .or(cluster_member_attr_set.map(Command::MemberAttributes))
            .or(downgrade_info_set.map(Command::Downgrade));
        #[cfg(feature = "next")]
        let known = known.or_else(|| crate::next::number_in(&bytes).map(|number| Command::Next { number }));
        let command = match known {
            Some(command) => command,
            None => Wider::decode(bytes)?.gated.ok_or(BadCommand::Unknown)?.command(),
        };
        Ok((command, by))
    }
}

/// The header of `InternalRaftRequest`, and nothing else of it.
#[derive(Clone, PartialEq, Message)]
struct WithHeader {
    #[prost(message, optional, tag = "100")]
    header: Option<pb::RequestHeader>,
}

/// The id in the header of a request's bytes; `None` if they have none.
pub fn request_id(bytes: &Bytes) -> Option<u64> {
    WithHeader::decode(bytes.clone()).ok()?.header.map(|header| header.id).filter(|id| *id != 0)
}

/// The field `tag` and the header, in the order of their numbers.
pub(crate) fn write<M: Message>(tag: u32, message: &M, header: &pb::RequestHeader) -> Bytes {
    let len = |tag, len: usize| encoding::key_len(tag) + encoding::encoded_len_varint(len as u64) + len;
    let (message_len, header_len) = (message.encoded_len(), header.encoded_len());
    let mut out = BytesMut::with_capacity(len(tag, message_len) + len(field::HEADER, header_len));
    let mut part = |tag: u32, len: usize, write: &dyn Fn(&mut BytesMut)| {
        encoding::encode_key(tag, encoding::WireType::LengthDelimited, &mut out);
        encoding::encode_varint(len as u64, &mut out);
        write(&mut out);
    };
    let write_message = |out: &mut BytesMut| message.encode_raw(out);
    let write_header = |out: &mut BytesMut| header.encode_raw(out);
    if tag < field::HEADER {
        part(tag, message_len, &write_message);
        part(field::HEADER, header_len, &write_header);
    } else {
        part(field::HEADER, header_len, &write_header);
        part(tag, message_len, &write_message);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_whole_message_and_come_back() {
        let key = Bytes::from_static(b"k");
        let put = pb::PutRequest { key: key.clone(), lease: -3, ..Default::default() };
        let delete = pb::DeleteRangeRequest { key: key.clone(), prev_kv: true, ..Default::default() };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put.clone())) };
        let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
        let attributes = membershippb::Attributes { name: "n".into(), client_urls: vec!["u".into()] };
        let commands = [
            Command::Put(put),
            Command::DeleteRange(delete),
            Command::Txn(txn),
            Command::Compact(pb::CompactionRequest { revision: 9, physical: true }),
            Command::LeaseGrant(pb::LeaseGrantRequest { ttl: 2, id: 1 }),
            Command::LeaseRevoke(pb::LeaseRevokeRequest { id: -1 }),
            Command::LeaseCheckpoint(pb::LeaseCheckpointRequest::default()),
            Command::Alarm(pb::AlarmRequest { action: 1, member_id: 7, alarm: 1 }),
            Command::ClusterVersion(membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() }),
            Command::MemberAttributes(membershippb::ClusterMemberAttrSetRequest {
                member_id: 7,
                member_attributes: Some(attributes),
            }),
            Command::Downgrade(membershippb::DowngradeInfoSetRequest { enabled: true, ver: "3.6.0".into() }),
        ]
        .into_iter()
        .chain(auth_commands().map(|command| Command::Auth(Box::new(command))))
        .collect::<Vec<Command>>();
        let kinds: Vec<CommandKind> = commands.iter().map(Command::kind).collect();
        let (last, known) = CommandKind::ALL.split_last().expect("there are some");
        assert_eq!((&kinds[..], *last), (known, CommandKind::Unknown), "in the order of their numbers");
        assert!(kinds.iter().enumerate().all(|(number, kind)| *kind as usize == number));
        for command in commands {
            let mut whole = pb::InternalRaftRequest {
                header: Some(pb::RequestHeader { id: 5, ..Default::default() }),
                ..Default::default()
            };
            match command.clone() {
                Command::Put(r) => whole.put = Some(r),
                Command::DeleteRange(r) => whole.delete_range = Some(r),
                Command::Txn(r) => whole.txn = Some(r),
                Command::Compact(r) => whole.compaction = Some(r),
                Command::LeaseGrant(r) => whole.lease_grant = Some(r),
                Command::LeaseRevoke(r) => whole.lease_revoke = Some(r),
                Command::LeaseCheckpoint(r) => whole.lease_checkpoint = Some(r),
                Command::Alarm(r) => whole.alarm = Some(r),
                Command::ClusterVersion(r) => whole.cluster_version_set = Some(r),
                Command::MemberAttributes(r) => whole.cluster_member_attr_set = Some(r),
                Command::Downgrade(r) => whole.downgrade_info_set = Some(r),
                Command::Auth(command) => command.set(&mut whole),
                other => unreachable!("{other:?} is not among them"),
            }
            let bytes = command.encode(5);
            assert_eq!(bytes, whole.encode_to_vec(), "{command:?}");
            assert_eq!(request_id(&bytes), Some(5));
            assert_eq!(Command::decode_by(bytes).expect("it is one"), (command.clone(), None));
            let header = whole.header.as_mut().expect("set above");
            (header.username, header.auth_revision) = ("alice".into(), 9);
            let by = Identity { user: "alice".into(), revision: 9 };
            let bytes = command.encode_by(5, Some(&by));
            assert_eq!(bytes, whole.encode_to_vec(), "{command:?}");
            assert_eq!(Command::decode_by(bytes).expect("it is one"), (command, Some(by)));
        }
        assert_eq!(request_id(&Bytes::from_static(b"\xff")), None);
    }

    fn auth_commands() -> impl Iterator<Item = AuthCommand> {
        let hash = || "aGFzaA==".to_owned();
        let name = || "n".to_owned();
        [
            AuthCommand::Enable(pb::AuthEnableRequest {}),
            AuthCommand::Disable(pb::AuthDisableRequest {}),
            AuthCommand::Authenticate(pb::InternalAuthenticateRequest {
                name: name(),
                password: String::new(),
                simple_token: "letters".into(),
            }),
            AuthCommand::UserAdd(pb::AuthUserAddRequest {
                name: name(),
                hashed_password: hash(),
                ..Default::default()
            }),
            AuthCommand::UserDelete(pb::AuthUserDeleteRequest { name: name() }),
            AuthCommand::UserChangePassword(pb::AuthUserChangePasswordRequest {
                name: name(),
                hashed_password: hash(),
                ..Default::default()
            }),
            AuthCommand::UserGrantRole(pb::AuthUserGrantRoleRequest { user: name(), role: "r".into() }),
            AuthCommand::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name(), role: "r".into() }),
            AuthCommand::RoleAdd(pb::AuthRoleAddRequest { name: name() }),
            AuthCommand::RoleDelete(pb::AuthRoleDeleteRequest { role: name() }),
            AuthCommand::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                name: name(),
                perm: Some(Default::default()),
            }),
            AuthCommand::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
                role: name(),
                ..Default::default()
            }),
        ]
        .into_iter()
    }

    #[test]
    fn a_request_of_a_later_version_says_which_one_and_others_that_are_unknown_are_refused() {
        let later = Command::Later { since: Version::new(3, 9) };
        let by = Identity { user: "alice".into(), revision: 9 };
        let bytes = later.encode_by(5, Some(&by));
        assert_eq!(Command::decode_by(bytes.clone()).expect("it is one"), (later, Some(by)));
        assert_eq!(request_id(&bytes), Some(5));
        let unknown = write(15_001, &Gated::since(Version::OWN), &pb::RequestHeader::default());
        assert!(matches!(Command::decode(unknown), Err(BadCommand::Unknown)));
    }

    #[test]
    fn the_end_of_a_lease_is_a_revoke_to_others_and_more_to_us() {
        let end = Command::LeaseEnd { id: -4, granted_index: 77 };
        let bytes = end.encode(5);
        let others = pb::InternalRaftRequest::decode(bytes.clone()).expect("a request");
        assert_eq!(others.lease_revoke, Some(pb::LeaseRevokeRequest { id: -4 }));
        assert_eq!(Command::decode(bytes).expect("it is one"), end);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(matches!(Command::decode(Bytes::from_static(b"\xff")), Err(BadCommand::Decode(_))));
        assert!(matches!(Command::decode(Bytes::new()), Err(BadCommand::Unknown)));
    }
}
