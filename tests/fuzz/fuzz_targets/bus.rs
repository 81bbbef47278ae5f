//! The body of a call on D-Bus, a text and its options, against anything that a caller may send: it is refused with a
//! reason or becomes settings. The text is also read as the request that `Chat` takes, with files beside it.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use gemmad::api::openai::chat::request;
use gemmad::chat::{Message, Role};
use gemmad::{api, chat};
use libfuzzer_sys::fuzz_target;
use zbus::zvariant::serialized::{Context, Data};
use zbus::zvariant::{BE, LE, OwnedValue};

#[path = "../../../src/bus"]
mod bus {
    pub mod options;
    pub mod settings;

    /// In the place of the bus's own errors, of which these readers make one kind.
    pub mod error {
        #[derive(Debug)]
        pub enum BusError {
            InvalidRequest(String),
        }
    }
}

use bus::error::BusError;
use bus::options::Options;
use bus::settings::Settings;

type Body = (String, HashMap<String, OwnedValue>);

fuzz_target!(|bytes: &[u8]| {
    let Some((order, body)) = bytes.split_first() else { return };
    let context = if order % 2 == 0 { Context::new_dbus(LE, 0) } else { Context::new_dbus(BE, 0) };
    let Ok(((text, options), _)) = Data::new(body, context).deserialize::<Body>() else { return };
    match settings(options) {
        Ok(settings) => {
            let request = settings.request(vec![Message::text(Role::User, &text)]);
            let _ = (settings.model(), request.check());
        }
        Err(BusError::InvalidRequest(reason)) => assert!(!reason.is_empty()),
    }
    let files: [Arc<[u8]>; 2] = [Arc::from(&b"GIF89a"[..]), Arc::from(&b"x"[..])];
    if let Err(refused) = request::parse_with(text.as_bytes(), &files) {
        assert!(!refused.reason.is_empty());
    }
});

/// Takes an option of each type, as the methods do.
fn settings(options: HashMap<String, OwnedValue>) -> Result<Settings, BusError> {
    let mut options = Options::new(options);
    for name in ["images", "sounds", "files"] {
        options.files(name)?;
    }
    options.count("timeout")?;
    options.size("ram")?;
    options.text("system")?;
    options.words("with")?;
    let settings = Settings::take(&mut options)?;
    options.finish()?;
    Ok(settings)
}
