//! The names, ids and addresses of `openfang-id` as fields.

use std::net::IpAddr;

use openfang_id::{AgentId, AgentKey, AgentName, Host, NetAddr, NodeId, NodeName, Transport};

use super::{DecodeError, Reader, Writer};

/// The longest name of an agent or node, in bytes; its own constructor checks the rest.
const NAME_BYTES_MAX: usize = 64;
/// The longest host name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

const TRANSPORT_TCP: u8 = 1;
const TRANSPORT_QUIC: u8 = 2;
const HOST_NAME: u8 = 1;
const HOST_IP4: u8 = 4;
const HOST_IP6: u8 = 6;
const KEY_ID: u8 = 1;
const KEY_NAME: u8 = 2;

impl Writer {
    /// Appends the 32 bytes of a node's public key.
    pub fn node_id(&mut self, id: &NodeId) -> &mut Self {
        self.raw(id.as_bytes())
    }

    /// Appends the 16 bytes of an agent's UUID.
    pub fn agent_id(&mut self, id: &AgentId) -> &mut Self {
        self.raw(id.as_bytes())
    }

    /// Appends a name, as [`Writer::str16`].
    pub fn agent_name(&mut self, name: &AgentName) -> &mut Self {
        self.str16(name.as_str())
    }

    /// Appends a name, as [`Writer::str16`].
    pub fn node_name(&mut self, name: &NodeName) -> &mut Self {
        self.str16(name.as_str())
    }

    /// Appends 1 and a UUID, or 2 and a name.
    pub fn agent_key(&mut self, key: &AgentKey) -> &mut Self {
        match key {
            AgentKey::Id(id) => self.u8(KEY_ID).agent_id(id),
            AgentKey::Name(name) => self.u8(KEY_NAME).agent_name(name),
        }
    }

    /// Appends the transport (1 TCP, 2 QUIC), the host (4 and 4 bytes, 6 and 16 bytes, or 1 and a
    /// name as [`Writer::str16`]) and the port.
    pub fn net_addr(&mut self, addr: &NetAddr) -> &mut Self {
        self.u8(match addr.transport {
            Transport::Tcp => TRANSPORT_TCP,
            Transport::Quic => TRANSPORT_QUIC,
        });
        match &addr.host {
            Host::Ip(IpAddr::V4(ip)) => self.u8(HOST_IP4).raw(&ip.octets()),
            Host::Ip(IpAddr::V6(ip)) => self.u8(HOST_IP6).raw(&ip.octets()),
            Host::Name(name) => self.u8(HOST_NAME).str16_max(name, HOST_BYTES_MAX),
        };
        self.u16(addr.port)
    }
}

impl Reader<'_> {
    /// Takes a node's public key.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when the bytes are no usable key.
    pub fn node_id(&mut self) -> Result<NodeId, DecodeError> {
        NodeId::from_public_key(self.array()?)
            .map_err(|_not_a_key| DecodeError::Invalid { what: "node id" })
    }

    /// Takes an agent's UUID.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when the message ends inside it.
    pub fn agent_id(&mut self) -> Result<AgentId, DecodeError> {
        self.array().map(AgentId::from_bytes)
    }

    /// Takes an agent's name.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when it is no name.
    pub fn agent_name(&mut self) -> Result<AgentName, DecodeError> {
        let invalid = |_not_a_name| DecodeError::Invalid { what: "agent name" };
        self.str16(NAME_BYTES_MAX)?.parse().map_err(invalid)
    }

    /// Takes a node's name.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] when it is no name.
    pub fn node_name(&mut self) -> Result<NodeName, DecodeError> {
        let invalid = |_not_a_name| DecodeError::Invalid { what: "node name" };
        self.str16(NAME_BYTES_MAX)?.parse().map_err(invalid)
    }

    /// Takes an agent's UUID or name.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] or [`DecodeError::Invalid`] when it is neither.
    pub fn agent_key(&mut self) -> Result<AgentKey, DecodeError> {
        match self.u8()? {
            KEY_ID => self.agent_id().map(AgentKey::Id),
            KEY_NAME => self.agent_name().map(AgentKey::Name),
            value => Err(DecodeError::Unknown {
                what: "agent key",
                value,
            }),
        }
    }

    /// Takes an address.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] or [`DecodeError::Invalid`] when it is none.
    pub fn net_addr(&mut self) -> Result<NetAddr, DecodeError> {
        let transport = match self.u8()? {
            TRANSPORT_TCP => Transport::Tcp,
            TRANSPORT_QUIC => Transport::Quic,
            value => {
                let what = "transport";
                return Err(DecodeError::Unknown { what, value });
            }
        };
        let host = match self.u8()? {
            HOST_IP4 => Host::Ip(IpAddr::from(self.array::<4>()?)),
            HOST_IP6 => Host::Ip(IpAddr::from(self.array::<16>()?)),
            HOST_NAME => host_name(self.str16(HOST_BYTES_MAX)?)?,
            value => {
                let what = "kind of host";
                return Err(DecodeError::Unknown { what, value });
            }
        };
        let port = self.u16()?;
        if port == 0 {
            return Err(DecodeError::Invalid { what: "port" });
        }
        Ok(NetAddr {
            transport,
            host,
            port,
        })
    }
}

/// Checks a host name by the one parser there is; it must come in the form that parser gives.
fn host_name(text: &str) -> Result<Host, DecodeError> {
    let invalid = DecodeError::Invalid { what: "host name" };
    let parsed: Result<NetAddr, _> = format!("/dns/{text}/tcp/1").parse();
    match parsed {
        Ok(addr) if matches!(&addr.host, Host::Name(name) if **name == *text) => Ok(addr.host),
        Ok(_) | Err(_) => Err(invalid),
    }
}
