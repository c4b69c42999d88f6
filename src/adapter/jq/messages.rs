//! From a body to its messages: what SNS, Event Grid and CloudEvents wrap around them is taken off, once.
//!
//! Invariants: what is inside passes the same strict reader as what is outside; a handshake or an empty list is no message; nothing in
//! a wrapping is taken for the message.
//!
//! Not here: proof of a wrapping's signature (`verify`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jaq_json::Val;

use super::{Unwrap, value};
use crate::json::{Document, Fault, Value};

/// One message, and what stood around it; null where nothing did.
pub(super) struct Message {
    pub(super) content: Val,
    pub(super) envelope: Val,
}

/// The messages of a body in order; what is wrong with one spoils no other.
pub(super) fn messages(root: Value<'_>, unwrap: Unwrap) -> Result<Vec<Result<Message, String>>, Fault> {
    let bare = |root| Ok(vec![Ok(Message { content: value::read(root)?, envelope: Val::Null })]);
    match unwrap {
        Unwrap::None => bare(root),
        Unwrap::Sns => match sns(root)? {
            Some(messages) => Ok(messages),
            None => Err(root.unknown("expected a message of Amazon SNS: an object with Type, TopicArn and Message")),
        },
        Unwrap::EventGrid => match each(root, event_grid)? {
            Some(messages) => Ok(messages),
            None => Err(root.unknown("expected events of Event Grid: objects with eventType, eventTime and data")),
        },
        Unwrap::CloudEvents => match each(root, cloud_event)? {
            Some(messages) => Ok(messages),
            None => Err(root.unknown("expected CloudEvents: objects with specversion, id and data")),
        },
        Unwrap::Auto => match sns(root)? {
            Some(messages) => Ok(messages),
            None => match each(root, event_grid)? {
                Some(messages) => Ok(messages),
                None => each(root, cloud_event)?.map_or_else(|| bare(root), Ok),
            },
        },
    }
}

type Messages = Vec<Result<Message, String>>;

/// Amazon SNS; none if this is something else.
fn sns(root: Value<'_>) -> Result<Option<Messages>, Fault> {
    if !root.is_object() {
        return Ok(None);
    }
    let [kind, topic, message] = root.fields_exactly(["Type", "TopicArn", "Message"])?;
    let (Some(kind), Some(_), Some(message)) = (kind, topic, message) else { return Ok(None) };
    match &*kind.text()? {
        "Notification" => {}
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => return Ok(Some(Vec::new())),
        _ => return Err(kind.fault("expected Notification, SubscriptionConfirmation or UnsubscribeConfirmation")),
    }
    let text = message.text()?;
    let inner = Document::read(text.as_bytes()).map_err(|_| message.fault("expected JSON in the text"))?;
    let content = value::read(inner.root()).map_err(|_| message.fault("a key stands twice in the JSON in the text"))?;
    Ok(Some(vec![Ok(Message { content, envelope: value::read(root)? })]))
}

/// What an event turns out to be.
enum Event {
    Message(Message),
    Handshake,
    SomethingElse,
}

/// One event or a list of them; none if the first is something else.
fn each<'d>(root: Value<'d>, read: impl Fn(Value<'d>) -> Result<Event, Fault>) -> Result<Option<Messages>, Fault> {
    if !root.is_list() {
        return Ok(match read(root)? {
            Event::Message(message) => Some(vec![Ok(message)]),
            Event::Handshake => Some(Vec::new()),
            Event::SomethingElse => None,
        });
    }
    let mut messages = Vec::new();
    for (at, item) in root.list()?.enumerate() {
        match read(item) {
            Ok(Event::Message(message)) => messages.push(Ok(message)),
            Ok(Event::Handshake) => {}
            Ok(Event::SomethingElse) if at == 0 => return Ok(None),
            Ok(Event::SomethingElse) => messages.push(Err("not an event like those before it".to_owned())),
            Err(fault) => messages.push(Err(fault.words(item))),
        }
    }
    // An empty list says nothing of what it is a list of.
    Ok((!messages.is_empty() || root.list()?.next().is_some()).then_some(messages))
}

/// An event of Event Grid.
fn event_grid(event: Value<'_>) -> Result<Event, Fault> {
    if !event.is_object() {
        return Ok(Event::SomethingElse);
    }
    let [kind, time, data] = event.fields_exactly(["eventType", "eventTime", "data"])?;
    let (Some(kind), Some(_), Some(data)) = (kind, time, data) else { return Ok(Event::SomethingElse) };
    if kind.text()?.starts_with("Microsoft.EventGrid.Subscription") {
        return Ok(Event::Handshake);
    }
    Ok(Event::Message(Message { content: value::read(data)?, envelope: value::read(event)? }))
}

/// A CloudEvent in structured mode.
fn cloud_event(event: Value<'_>) -> Result<Event, Fault> {
    if !event.is_object() {
        return Ok(Event::SomethingElse);
    }
    let [version, id, data, encoded] = event.fields_exactly(["specversion", "id", "data", "data_base64"])?;
    let (Some(_), Some(_)) = (version, id) else { return Ok(Event::SomethingElse) };
    let content = match (data, encoded) {
        (Some(data), None) => value::read(data)?,
        (None, Some(encoded)) => {
            let bytes = STANDARD.decode(&*encoded.text()?).map_err(|_| encoded.fault("expected base64"))?;
            let inner = Document::read(&bytes).map_err(|_| encoded.fault("expected JSON in the base64"))?;
            value::read(inner.root()).map_err(|_| encoded.fault("a key stands twice in the JSON in the base64"))?
        }
        _ => return Err(event.missing("data")),
    };
    Ok(Event::Message(Message { content, envelope: value::read(event)? }))
}
