//! The language of qubesd: names, codecs on bytes, typed calls, firewall rules, and a client.
//!
//! Everything but [`client`] is free of I/O. Nothing here decides who may do what.

pub mod call;
#[cfg(feature = "client")]
pub mod client;
pub mod destination;
pub mod error;
pub mod event;
pub mod firewall;
pub mod firewall_xml;
pub mod name;
pub mod request;
pub mod response;

#[cfg(feature = "client")]
pub use client::{Client, EventStream};
pub use {
    call::{Call, ReplyError},
    destination::{Destination, Source},
    error::Error,
    event::{Event, EventDecoder, EventError, EventItem},
    name::{
        DeviceClass, DeviceId, FeatureName, LabelName, NameError, OptionName, OptionValue,
        PoolName, PortId, PropertyName, QubeName, Revision, Tag, Uuid, VolumeName,
    },
    request::{Request, RequestError},
    response::{Exception, Response, ResponseError},
};
