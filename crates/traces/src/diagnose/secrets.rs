//! The rule of secrets: attribute values that nobody should have recorded.

/// The kind of secret that an attribute holds. The secret itself is never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    PrivateKey,
    BearerToken,
    Jwt,
    ApiKey,
    GitHubToken,
    AwsAccessKey,
    SlackToken,
    UrlWithPassword,
    /// A URL with a secret in its query.
    UrlWithSecret,
    /// The name of the attribute says that its value is secret.
    ByName,
}

/// Whether nobody should hand on this value of the attribute or header `key`. Looks at all of a value, and for tokens also in a value
/// in which something else was redacted.
pub fn is_secret(key: &str, value: &str) -> bool {
    token(value).is_some() || find_in(key, value).is_some()
}

/// The secret that the attribute `key` holds.
pub(super) fn find(key: &str, value: &str) -> Option<Secret> {
    // A secret is short, so the beginning of a long value is enough.
    find_in(key, beginning(value))
}

/// The token that a value has.
fn token(value: &str) -> Option<Secret> {
    let tokens = [
        (value.contains("-----BEGIN ") && value.contains("PRIVATE KEY"), Secret::PrivateKey),
        (token_behind(value, "Bearer ", 12), Secret::BearerToken),
        (token_behind(value, "eyJ", 30) && value.matches('.').count() >= 2, Secret::Jwt),
        (token_behind(value, "sk-", 20), Secret::ApiKey),
        (
            token_behind(value, "ghp_", 20) || token_behind(value, "github_pat_", 20),
            Secret::GitHubToken,
        ),
        (token_behind(value, "AKIA", 16), Secret::AwsAccessKey),
        (token_behind(value, "xoxb-", 20), Secret::SlackToken),
    ];
    tokens.into_iter().find(|(found, _)| *found).map(|(_, secret)| secret)
}

fn find_in(key: &str, value: &str) -> Option<Secret> {
    let masked = ["redact", "filtered", "masked", "***", "xxxx", "[hidden"];
    let lower = value.to_lowercase();
    if value.trim().is_empty() || masked.iter().any(|mask| lower.contains(mask)) {
        return None;
    }
    let of_url = [
        (password_in_url(value), Secret::UrlWithPassword),
        (secret_in_query(value), Secret::UrlWithSecret),
    ];
    let of_url = || of_url.into_iter().find(|(found, _)| *found).map(|(_, secret)| secret);
    if let Some(secret) = token(value).or_else(of_url) {
        return Some(secret);
    }
    // A short value describes the secret: `user.password` = `set`.
    (is_secret_name(key) && value.len() >= 6).then_some(Secret::ByName)
}

/// Whether the name of an attribute or a header says that its value is secret.
pub fn is_secret_name(key: &str) -> bool {
    let key = key.to_lowercase();
    let mut words = key.rsplit(['.', '_', '-', '/']);
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    matches!(
        last,
        "password"
            | "passwd"
            | "pwd"
            | "secret"
            | "apikey"
            | "authorization"
            | "cookie"
            | "credentials"
    ) || matches!(
        (before, last),
        ("api" | "private" | "access" | "secret", "key")
            | ("access" | "auth" | "refresh" | "id" | "bearer", "token")
    )
}

/// The first 16 KiB of a text.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(16 * 1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether `mark` is followed by at least `length` characters of a token, with a digit among them as no word has.
fn token_behind(value: &str, mark: &str, length: usize) -> bool {
    let is_token = |it: &char| it.is_ascii_alphanumeric() || "-_.~+/=".contains(*it);
    value.match_indices(mark).any(|(at, _)| {
        let begins = !value[..at].ends_with(|it: char| it.is_ascii_alphanumeric() || it == '-');
        begins && {
            let rest = value[at + mark.len()..].chars();
            let token: String = rest.take_while(is_token).take(100).collect();
            token.len() >= length && token.bytes().any(|it| it.is_ascii_digit())
        }
    })
}

fn password_in_url(value: &str) -> bool {
    value.match_indices("://").any(|(at, _)| {
        let authority = value[at + 3..].split(['/', '?', '#', ' ', '"']).next();
        let user = authority.and_then(|it| it.rsplit_once('@'));
        user.is_some_and(|(user, _)| user.split_once(':').is_some_and(|(_, it)| !it.is_empty()))
    })
}

fn secret_in_query(value: &str) -> bool {
    let names = ["password=", "access_token=", "api_key=", "apikey=", "token=", "secret="];
    let pairs = value.split(['?', '&']).skip(1);
    pairs.into_iter().any(|pair| {
        let pair = pair.to_lowercase();
        names.iter().any(|name| pair.strip_prefix(name).is_some_and(|it| it.len() >= 6))
    })
}
