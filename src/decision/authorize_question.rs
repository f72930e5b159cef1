//! Row 11's last question: whether the backend's own hook allows a grant that every other row allows.
//!
//! Keeps true: a hook that gives no answer never refuses: a holder's renewal goes on without it, all others get 503,
//! unless the configuration allows them too; a caller whom the hook has refused since the last grant gets 503
//! whatever the configuration says.
//! Must not know: how the hook is asked.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::order::answers::rides_through;
use super::order::holder::Holder;
use super::order::{DecisionRefusal, Now};
use super::request::TokenRequest;
use crate::config::model::OnError;
use crate::sessions::Ground;
use crate::sources::authorize::Opinion;
use crate::terms::outcome::{LookupOutcome, Outcome};
use crate::terms::role::Role;

/// The body that is posted.
#[derive(Serialize)]
struct AuthorizeRequest<'a> {
    subject: &'a str,
    /// The claims as the login's issuer signed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a RawValue>,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    role: &'static str,
}

/// Asks the configured hook, if there is one: the longest lifetime that it allows, or its refusal.
pub(super) async fn ask(
    holder: &Holder<'_>,
    request: &TokenRequest,
    role: Role,
    now: Now,
) -> Result<Option<Duration>, DecisionRefusal> {
    let (snapshot, claims) = (holder.snapshot, holder.claims);
    let (Some(authorizer), Some(hook)) = (&snapshot.authorizer, &snapshot.config.authorize) else {
        return Ok(None);
    };
    let question = serde_json::to_vec(&AuthorizeRequest {
        subject: &claims.subject,
        claims: serde_json::from_str(&claims.all).ok(),
        channel: &request.channel,
        uid: request.user.uid(),
        account: request.user.account(),
        role: role.as_str(),
    });
    let question = question.map_err(|_| unavailable())?;
    let (outcome, verdict) = match authorizer.ask(Bytes::from(question), now.patience()).await {
        Ok(Opinion::Yes(at_most)) => (LookupOutcome::Miss, Ok(at_most)),
        Ok(Opinion::No(message)) => (
            LookupOutcome::Miss,
            Err(DecisionRefusal::new(
                Outcome::PolicyDenied,
                String::from(message),
            )),
        ),
        Err(no_answer)
            if rides_through(no_answer, hook.stale_if_error, now)
                && holder.rests(Ground::Hook, Some(role)).is_some() =>
        {
            (LookupOutcome::Stale, Ok(None))
        }
        Err(_) => (
            LookupOutcome::Error,
            match hook.on_error {
                OnError::Allow if !holder.is_refused(Ground::Hook, role) => {
                    holder.rested.set(true);
                    Ok(None)
                }
                OnError::Allow | OnError::Unavailable => Err(unavailable()),
            },
        ),
    };
    authorizer.count(outcome, now.elapsed);
    verdict
}

fn unavailable() -> DecisionRefusal {
    DecisionRefusal::unavailable("It can't be decided right now whether this is allowed")
}
