//! `/ui`: the files of the page, which are a part of this program.
//!
//! They hold nothing of this node and need no token; what the page shows comes from `/v1`.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;

/// What the page may load and whom it may ask: this daemon alone. It may not be shown within
/// another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

struct File {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

macro_rules! file {
    ($path:literal, $media_type:expr) => {
        File {
            path: concat!("/ui/", $path),
            media_type: $media_type,
            content: include_str!(concat!("../../ui/", $path)),
        }
    };
}

const INDEX: File = File {
    path: "/ui/",
    ..file!("index.html", "text/html; charset=utf-8")
};

const FILES: [File; 15] = [
    INDEX,
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("page.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("detail.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("graph.js", SCRIPT),
    file!("matrix.js", SCRIPT),
    file!("model.js", SCRIPT),
    file!("search.js", SCRIPT),
    file!("vendor/d3-dispatch.min.js", SCRIPT),
    file!("vendor/d3-force.min.js", SCRIPT),
    file!("vendor/d3-quadtree.min.js", SCRIPT),
    file!("vendor/d3-timer.min.js", SCRIPT),
];

pub(super) fn router() -> Router {
    let redirect = get(async || Redirect::permanent("/ui/"));
    FILES
        .iter()
        .fold(Router::new().route("/ui", redirect), |router, file| {
            router.route(file.path, get(async move || answer(file)))
        })
}

fn answer(file: &File) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, file.media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another release may be there the next time.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, file.content).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn scripts_in(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().display());
            if entry.file_type().unwrap().is_dir() {
                scripts_in(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served_but_the_licence() {
        let mut there = BTreeSet::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        scripts_in(&folder, "/ui/", &mut there);
        let served = FILES.iter().map(|file| match file.path {
            "/ui/" => "/ui/index.html".to_owned(),
            path => path.to_owned(),
        });
        let mut expected: BTreeSet<String> = served.collect();
        expected.extend(["LICENSE", "README.md"].map(|name| format!("/ui/vendor/{name}")));
        assert_eq!(there, expected);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_holds_no_script_of_its_own() {
        for file in FILES.iter().filter(|file| !file.path.contains("vendor")) {
            for line in file.content.lines() {
                let elsewhere = line.replace("http://www.w3.org/2000/svg", "");
                assert!(!elsewhere.contains("://"), "{}: {line}", file.path);
            }
        }
        assert!(!INDEX.content.contains("style="));
        assert!(
            INDEX
                .content
                .split("<script")
                .skip(1)
                .all(|tag| tag.starts_with(" src="))
        );
    }
}
