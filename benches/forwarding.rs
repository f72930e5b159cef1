//! What a forwarded request costs before it meets a socket: whose target it is, whose address, which header fields.

#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros document nothing; what fails here fails a benchmark

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use renewd::http::forwarded::{self, Peer};
use renewd::http::hop::{self, RequestChanges};
use renewd::http::readings::Readings;
use renewd::http::sanity;
use renewd::http::target::{OwnedPaths, origin_form};

const BROWSER: [(&str, &str); 9] = [
    ("host", "live.example.com"),
    ("connection", "keep-alive"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0)"),
    ("accept", "*/*"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://live.example.com/"),
    ("cookie", "session=0123456789abcdef"),
    ("x-client-version", "7"),
];

const EXPRESS: [(&str, &str); 7] = [
    ("content-type", "application/json; charset=utf-8"),
    ("content-length", "1024"),
    ("etag", "W/\"400-abcdefghijklmnopqrstuvwxyz0\""),
    ("vary", "Origin"),
    ("date", "Mon, 23 Nov 2026 10:00:00 GMT"),
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
];

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

fn targets(criterion: &mut Criterion) {
    let paths = |paths: &[&str]| {
        paths
            .iter()
            .map(|path| (*path).to_owned())
            .collect::<Vec<_>>()
    };
    let token = paths(&["/api/live/token", "/api/live/agora-token"]);
    let refresh = paths(&["/api/live/refresh-token", "/refresh-token"]);
    let owned = OwnedPaths::new(&token, &refresh);
    let mut group = criterion.benchmark_group("target");
    for (name, target) in [
        ("served", "/api/live/agora-token"),
        ("foreign", "/api/live/active?page=2"),
        ("escaped", "/api/live/../live/%74oken"),
    ] {
        let target: Uri = target.parse().unwrap();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let target = black_box(&target);
                owned.classify(target, &Readings::of(target.path()))
            });
        });
    }
    let target: Uri = "/api/live/active?page=2".parse().unwrap();
    group.bench_function("origin form", |bench| {
        bench.iter(|| origin_form(black_box(&target)));
    });
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let target: Uri = "/api/live/active?page=2".parse().unwrap();
    let (request, response) = (fields(&BROWSER), fields(&EXPRESS));
    let peer = Peer {
        address: Some(IpAddr::from([203, 0, 113, 77])),
        nameless: false,
        tls: false,
    };
    let host = sanity::effective_host(&target, &request);
    let origin = forwarded::resolve(peer, &[], &request, host.as_ref());
    let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
    let changes = RequestChanges {
        host: host.as_ref().unwrap(),
        origin: &origin,
        request_id: id.as_bytes(),
        upgrade: false,
        chunked: false,
        keeps_method: false,
    };

    let mut group = criterion.benchmark_group("headers");
    group.bench_function("sanity", |bench| {
        bench.iter(|| sanity::check(&Method::GET, &target, Version::HTTP_11, black_box(&request)));
    });
    group.bench_function("origin", |bench| {
        bench.iter(|| forwarded::resolve(peer, &[], black_box(&request), host.as_ref()));
    });
    group.bench_function("request", |bench| {
        let mut out = Vec::with_capacity(4096);
        bench.iter(|| {
            out.clear();
            hop::write_request_fields(black_box(&request), &changes, &mut out);
        });
    });
    group.bench_function("response", |bench| {
        bench.iter_batched(
            || response.clone(),
            |response| hop::response_headers(response, id.clone(), false),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, targets, headers);
criterion_main!(benches);
