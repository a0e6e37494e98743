//! What is opened while the process may do everything, before it gives that up.

use std::{
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
};

use anyhow::{Context as _, anyhow};
use mesh_inventory::roster::Signer;
use mesh_os::{
    file,
    identity::read_identity,
    privilege::{self, Keep, UserChange},
    socket,
    unix::{self, ListenError},
};
use mesh_types::IdentitySeed;
use tracing::{debug, info, warn};

use crate::Config;

/// Permission bits of the local socket: its user and its group may use it.
const SOCKET_MODE: u32 = 0o660;

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or what it names, cannot be used: to be mended before the next try.
    #[error(transparent)]
    Misconfigured(anyhow::Error),
    /// The system refused.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Identity and sockets.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) identity: IdentitySeed,
    pub(crate) socket: UdpSocket,
    pub(crate) listener: UnixListener,
    pub(crate) socket_file: unix::SocketFile,
    pub(crate) http_listener: Option<TcpListener>,
}

impl Opened {
    pub(crate) fn open(config: Config) -> Result<Self, StartError> {
        let identity = read_identity(&config.identity_file)
            .map_err(|error| StartError::Misconfigured(error.into()))?;
        if let Some(path) = &config.inventory
            && !config.signers.contains(&Signer::from(identity.public()))
        {
            return Err(StartError::Misconfigured(anyhow!(
                "the controller is to sign `{}`, and its own identity `{}` is not among `signers`; add it, or give it a signed `roster` instead of the `inventory`",
                path.display(),
                identity.public()
            )));
        }
        let socket = socket::bind_udp(config.listen).map_err(anyhow::Error::from)?;
        let (listener, socket_file) =
            unix::listen(&config.socket, SOCKET_MODE, config.group.as_deref()).map_err(
                |error| match error {
                    ListenError::UnknownGroup(_) => StartError::Misconfigured(error.into()),
                    ListenError::InUse(_) | ListenError::NotASocket(_) | ListenError::Io { .. } => {
                        StartError::Failed(error.into())
                    }
                },
            )?;
        let http_listener = config
            .http_listen
            .map(socket::bind_tcp)
            .transpose()
            .map_err(anyhow::Error::from)?;
        Ok(Self {
            config,
            identity,
            socket,
            listener,
            socket_file,
            http_listener,
        })
    }

    /// Gives up all privileges for good; what is written from now on belongs to the later user before.
    pub(crate) fn drop_privileges(&self) -> Result<(), StartError> {
        let config = &self.config;
        if let Some(name) = &config.user
            && !privilege::is_user(name)
        {
            return Err(StartError::Misconfigured(anyhow!(
                "there is no user `{name}`; create it, or leave `user` out"
            )));
        }
        let user = privilege::choose_user(config.user.as_deref(), Keep::Nothing);
        // Nobody else needs to read the roster, which names the whole fleet.
        if let Err(error) = file::make_private_dir(&config.state_dir) {
            warn!(%error, "could not make the state directory");
        }
        match privilege::user_after_drop(Some(&user), Keep::Nothing) {
            Ok(user) => {
                let given = privilege::hand_over(&config.state_dir, &user)
                    .and_then(|()| privilege::hand_over_socket_dir(&config.socket, &user));
                if let Err(error) = given {
                    warn!(%error, "could not give the directories to the controller's user");
                }
            }
            Err(reason) => debug!(reason, "the user stays"),
        }
        let change = privilege::drop_privileges(Some(&user), Keep::Nothing)
            .context("cannot give up privileges")?;
        match &change {
            UserChange::Changed { name, .. } => info!(user = name, "gave up privileges"),
            UserChange::Kept { reason } => info!(reason, "gave up privileges, but kept the user"),
        }
        Ok(())
    }
}
