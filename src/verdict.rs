//! What the gateway says to a call that it does not serve: the one table of denials (interfaces, section 3).

use std::time::Duration;

use http::StatusCode;

/// Why a call is denied. Everything a client is told follows from this value and from [`Denial::row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// No key, a malformed, an unknown or a deleted one: nothing tells them apart.
    NotValid,
    TwoKeys,
    KeyInQuery,
    /// The key is disabled or has expired.
    NotUsable,
    BrowserCall,
    AccountSuspended,
    UnknownCluster,
    NotTheOwner,
    AddressNotAllowed,
    /// A rate or concurrency limit.
    Limited {
        retry_after: Duration,
    },
    /// The key may be good, but it cannot be checked now. Never said as [`Denial::NotValid`].
    CannotVerify,
    CannotMeter,
    /// The upstream refused, reset or was not there.
    Upstream,
    Deadline,
    BodyTooLarge,
    HeadersTooLarge,
    Malformed,
    /// Shutting down, or overloaded.
    Overloaded,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub http: StatusCode,
    /// The gRPC status code.
    pub grpc: u8,
    /// The code in the body, and in `extra-code`.
    pub code: i32,
    /// The label in metrics.
    pub label: &'static str,
    pub message: &'static str,
}

const fn row(http: StatusCode, grpc: u8, code: i32, label: &'static str, message: &'static str) -> Row {
    Row { http, grpc, code, label, message }
}

impl Denial {
    /// Every denial once, for tests and for metrics that start at zero.
    pub const ALL: [Self; 18] = [
        Self::NotValid,
        Self::TwoKeys,
        Self::KeyInQuery,
        Self::NotUsable,
        Self::BrowserCall,
        Self::AccountSuspended,
        Self::UnknownCluster,
        Self::NotTheOwner,
        Self::AddressNotAllowed,
        Self::Limited { retry_after: Duration::from_secs(1) },
        Self::CannotVerify,
        Self::CannotMeter,
        Self::Upstream,
        Self::Deadline,
        Self::BodyTooLarge,
        Self::HeadersTooLarge,
        Self::Malformed,
        Self::Overloaded,
    ];

    #[rustfmt::skip]
    pub const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::NotValid => row(S::UNAUTHORIZED, 16, -3001, "not_valid",
                "The API key is missing or not valid. Send a valid key in the header dashvector-auth-token."),
            Self::TwoKeys => row(S::BAD_REQUEST, 3, -3002, "two_keys",
                "More than one API key was sent. Send exactly one, in one header."),
            Self::KeyInQuery => row(S::BAD_REQUEST, 3, -3003, "key_in_query",
                "An API key in the query string is refused, because addresses end up in logs. Send it in the header \
                 dashvector-auth-token, and replace the key that was sent."),
            Self::NotUsable => row(S::UNAUTHORIZED, 16, -3004, "not_usable",
                "The API key is disabled or has expired. The account's owner can see it in the console."),
            Self::BrowserCall => row(S::FORBIDDEN, 7, -3005, "browser_call",
                "API keys are for servers only; this call came from a browser. Call from your own server instead."),
            Self::AccountSuspended => row(S::FORBIDDEN, 7, -3006, "account_suspended",
                "The account that owns this API key is suspended. Its owner can ask the operator why."),
            Self::UnknownCluster => row(S::NOT_FOUND, 5, -3007, "unknown_cluster",
                "No cluster is served under this host name. Check the endpoint against the console."),
            Self::NotTheOwner => row(S::FORBIDDEN, 7, -3008, "not_the_owner",
                "The account of this API key does not own this cluster. Use a key of the account that does."),
            Self::AddressNotAllowed => row(S::FORBIDDEN, 7, -3009, "address_not_allowed",
                "The cluster's allow-list does not contain the address this call came from."),
            Self::Limited { .. } => row(S::TOO_MANY_REQUESTS, 8, -3010, "limited",
                "A limit of calls is reached. Try again after the time in Retry-After."),
            Self::CannotVerify => row(S::SERVICE_UNAVAILABLE, 14, -3011, "cannot_verify",
                "The API key cannot be verified right now. Nothing is wrong with the call; try again shortly."),
            Self::CannotMeter => row(S::SERVICE_UNAVAILABLE, 14, -3012, "cannot_meter",
                "The call cannot be metered right now and was not passed on. Try again shortly."),
            Self::Upstream => row(S::BAD_GATEWAY, 14, -3013, "upstream",
                "The vector service refused or broke the connection, or could not be reached."),
            Self::Deadline => row(S::GATEWAY_TIMEOUT, 4, -3014, "deadline",
                "The call took longer than its deadline."),
            Self::BodyTooLarge => row(S::PAYLOAD_TOO_LARGE, 8, -3015, "body_too_large",
                "The request body is too large. Send fewer documents in one call."),
            Self::HeadersTooLarge => row(S::REQUEST_HEADER_FIELDS_TOO_LARGE, 8, -3015, "headers_too_large",
                "The header fields are too large or too many."),
            Self::Malformed => row(S::BAD_REQUEST, 3, -3016, "malformed",
                "The request is malformed or ambiguous and was not passed on."),
            Self::Overloaded => row(S::SERVICE_UNAVAILABLE, 14, -3017, "overloaded",
                "The gateway is shutting down or overloaded. Try again shortly."),
        }
    }

    /// What goes into `Retry-After`, in whole seconds, where trying again makes sense.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::Limited { retry_after } => {
                Some(retry_after.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(1))
            }
            Self::CannotVerify | Self::CannotMeter | Self::Overloaded => Some(1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_denial_has_a_row_and_a_label_of_its_own() {
        let labels: HashSet<_> = Denial::ALL.iter().map(|denial| denial.row().label).collect();
        assert_eq!(labels.len(), Denial::ALL.len());
        for denial in Denial::ALL {
            let row = denial.row();
            assert!((-3017..=-3001).contains(&row.code), "{denial:?}");
            assert!((1..=16).contains(&row.grpc), "{denial:?}");
            assert!(row.message.is_ascii(), "a message goes into a header: {denial:?}");
        }
    }

    #[test]
    fn cannot_know_is_never_said_as_not_valid() {
        assert_ne!(Denial::CannotVerify.row().http, Denial::NotValid.row().http);
        assert_eq!(Denial::CannotVerify.retry_after(), Some(1));
    }
}
