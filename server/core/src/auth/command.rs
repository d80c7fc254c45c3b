// SPDX-License-Identifier: Apache-2.0
//! Changes of users, roles and tokens as they travel in the log.
//!
//! Owns      the fields 1000 to 1204 of `InternalRaftRequest` that are proposed, and the base64 of the hashes
//!           in them.
//! Holds     no clear password is ever in one: the proposer put the hash in its place (AU-6).
//! Never     decides anything.

use crate::command::{CommandKind, write};
use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;

macro_rules! commands {
    ($($name:ident($request:ident) = $tag:literal in $field:ident as $kind:ident;)*) => {
        /// See the module.
        #[derive(Clone, PartialEq, Debug)]
        pub enum AuthCommand {
            $($name(pb::$request),)*
        }

        impl AuthCommand {
            pub fn kind(&self) -> CommandKind {
                match self {
                    $(AuthCommand::$name(_) => CommandKind::$kind,)*
                }
            }

            /// The bytes of an `InternalRaftRequest` with this request and this header.
            pub(crate) fn encode(&self, header: &pb::RequestHeader) -> Bytes {
                match self {
                    $(AuthCommand::$name(r) => write($tag, r, header),)*
                }
            }

            /// The one that is set, if any is.
            pub(crate) fn take(r: &mut pb::InternalRaftRequest) -> Option<AuthCommand> {
                $(
                    if let Some(request) = r.$field.take() {
                        return Some(AuthCommand::$name(request));
                    }
                )*
                None
            }

            /// Sets the field of a whole message, as prost would write it.
            #[cfg(test)]
            pub(crate) fn set(self, r: &mut pb::InternalRaftRequest) {
                match self {
                    $(AuthCommand::$name(request) => r.$field = Some(request),)*
                }
            }
        }
    };
}

commands! {
    Enable(AuthEnableRequest) = 1000 in auth_enable as AuthEnable;
    Disable(AuthDisableRequest) = 1011 in auth_disable as AuthDisable;
    Authenticate(InternalAuthenticateRequest) = 1012 in authenticate as Authenticate;
    UserAdd(AuthUserAddRequest) = 1100 in auth_user_add as AuthUserAdd;
    UserDelete(AuthUserDeleteRequest) = 1101 in auth_user_delete as AuthUserDelete;
    UserChangePassword(AuthUserChangePasswordRequest) = 1103 in auth_user_change_password as AuthUserChangePassword;
    UserGrantRole(AuthUserGrantRoleRequest) = 1104 in auth_user_grant_role as AuthUserGrantRole;
    UserRevokeRole(AuthUserRevokeRoleRequest) = 1105 in auth_user_revoke_role as AuthUserRevokeRole;
    RoleAdd(AuthRoleAddRequest) = 1200 in auth_role_add as AuthRoleAdd;
    RoleDelete(AuthRoleDeleteRequest) = 1201 in auth_role_delete as AuthRoleDelete;
    RoleGrantPermission(AuthRoleGrantPermissionRequest) = 1203 in auth_role_grant_permission as AuthRoleGrantPermission;
    RoleRevokePermission(AuthRoleRevokePermissionRequest) = 1204 in auth_role_revoke_permission as AuthRoleRevokePermission;
}

/// As Go's `StdEncoding`, which does not look at the bits behind the last byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// With padding, as Go's `StdEncoding`.
pub fn encode_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// `None` if it is not what [`encode_base64`] writes, line ends aside, which Go skips.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    BASE64.decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_there_and_back() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(encode_base64(bytes), text);
            assert_eq!(decode_base64(text).as_deref(), Some(bytes));
        }
        assert_eq!(decode_base64("Zm9v\nYg==\r\n").as_deref(), Some(&b"foob"[..]));
        for text in ["Z", "Zg", "Zg=", "Zg===", "Z===", "====", "Zg==Zg==", "Zg-_", "Zm9v!"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }
}
