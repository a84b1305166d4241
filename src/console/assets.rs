//! The style sheet, the script and the icon: part of the binary, named after their content, so browsers may keep them.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::control::error::{Kind, Problem};

/// One file under [`FOLDER`].
pub struct Asset {
    /// Like `console-1a2b3c4d5e6f.css`.
    name: String,
    content_type: &'static str,
    content: &'static str,
}

pub const FOLDER: &str = "/console/assets/";

pub static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("css", "text/css; charset=utf-8", include_str!("assets/console.css")));
pub static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", include_str!("assets/console.js")));
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("svg", "image/svg+xml", include_str!("assets/icon.svg")));

impl Asset {
    fn new(ending: &str, content_type: &'static str, content: &'static str) -> Self {
        let hash: [u8; 32] = Sha256::digest(content.as_bytes()).into();
        let short = hash.first_chunk::<8>().copied().unwrap_or_default();
        Self { name: format!("console-{}.{ending}", HEXLOWER.encode(&short)), content_type, content }
    }

    pub fn path(&self) -> String {
        format!("{FOLDER}{}", self.name)
    }
}

pub async fn serve(Path(name): Path<String>) -> Response {
    let all = [&*STYLE, &*SCRIPT, &*ICON];
    let Some(asset) = all.into_iter().find(|asset| asset.name == name) else {
        return Problem::from(Kind::NotFound).into_response();
    };
    let mut response = Response::new(Body::from(asset.content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    // Another content has another name.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
