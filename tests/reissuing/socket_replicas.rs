//! engine.io's polling transport through several renewd with one Redis: a session's requests come to any of them, and its
//! logins count at all.

#![allow(clippy::unwrap_used, clippy::panic)] // a test's way to fail

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::app::{ASTROLOGER, CHANNEL, VIEWER, send, settings, start};
use crate::support::conversation::request;
use crate::support::express::{Express, Version};
use crate::support::messages::Wire;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings, jwt, now};
use crate::support::talkers::Talkers;
use crate::support::web_sockets::{TEXT, frame, next, open};

/// What Agora lets a publisher do: join, publish audio, video and data.
const PUBLISHER: usize = 4;

/// The lines of `[redis]` for a store that is near.
const NEAR: &str = "timeout = \"10s\"";

fn replica(app: &Express, redis: &Redis, lines: &str) -> Renewd {
    let url = redis.url();
    let renewd = Renewd::start(&Settings {
        tables: format!(
            "[[reissue.socket]]\npath = \"/socket.io/*\"\nbinary = true\n[redis]\nurl = \"{url}\"\n{lines}\n"
        ),
        streams_table: "channel_pattern = \"live_*\"".to_owned(),
        ..settings(app)
    });
    is_shared(&renewd);
    renewd
}

fn is_shared(renewd: &Renewd) {
    renewd.eventually("the store answers", |renewd| {
        renewd.whole(r#"renewd_store_mode{mode="shared"}"#) == 1
    });
}

/// A login of the app's, for an hour.
fn login(user: &str) -> String {
    jwt(&json!({"astrologerId": user, "sessionId": "session", "exp": now() + 3600}))
}

fn connect(namespace: &str, user: &str) -> String {
    let auth = json!({ "token": login(user) });
    match namespace {
        "/" => format!("40{auth}"),
        namespace => format!("40{namespace},{auth}"),
    }
}

/// A client whose requests come to the replica that a test names.
struct Roaming {
    id: String,
    /// Packets that have come and weren't looked at.
    packets: Vec<String>,
}

impl Roaming {
    /// Opens a session, with further field lines in this one request.
    fn open(at: &Renewd, fields: &str) -> Self {
        let mut client = Self {
            id: String::new(),
            packets: Vec::new(),
        };
        client.poll(at.public, fields);
        let opened: Value = serde_json::from_str(&client.take("0").unwrap()).unwrap();
        opened["sid"].as_str().unwrap().clone_into(&mut client.id);
        client
    }

    /// Opens a session, and a namespace in it.
    fn connected(at: &Renewd, packet: &str) -> Self {
        let mut client = Self::open(at, "");
        client.post(at, packet);
        client.wait(at, "40");
        client
    }

    fn target(&self, transport: &str) -> String {
        let session = match &*self.id {
            "" => String::new(),
            id => format!("&sid={id}"),
        };
        format!("/socket.io/?EIO=4&transport={transport}{session}")
    }

    fn poll(&mut self, at: SocketAddr, fields: &str) {
        let fields = format!("{fields}Connection: close\r\n");
        let answer = send(at, &request("GET", self.target("polling"), &fields, ""));
        assert_eq!(answer.status, 200, "{answer:?}");
        let payload = String::from_utf8(answer.body).unwrap();
        self.packets
            .extend(payload.split('\u{1e}').map(str::to_owned));
    }

    fn take(&mut self, beginning: &str) -> Option<String> {
        let mut packets = self.packets.iter();
        let found = packets.position(|packet| packet.starts_with(beginning))?;
        Some(self.packets.remove(found)[beginning.len()..].to_owned())
    }

    /// What follows the beginning of the first packet with it.
    fn wait(&mut self, at: &Renewd, beginning: &str) -> String {
        loop {
            if let Some(found) = self.take(beginning) {
                return found;
            }
            self.poll(at.public, "");
        }
    }

    fn post(&self, at: &Renewd, packet: &str) {
        let fields = "Content-Type: text/plain;charset=UTF-8\r\nConnection: close\r\n";
        let asked = request("POST", self.target("polling"), fields, packet);
        let answer = send(at.public, &asked);
        assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    }

    /// The token that the backend sends for the astrologer's stream: asked for at one replica, and polled for at another.
    fn token(&mut self, [asked, polled]: [&Renewd; 2], namespace: &str) -> Value {
        self.post(asked, &ask(namespace));
        let beginning = format!("42{}", behind(namespace));
        token_in(&self.wait(polled, &beginning))
    }

    /// The upgrade to a WebSocket, as engine.io's client makes it.
    fn upgrade(&self, at: &Renewd) -> Wire {
        let (mut wire, answer) = open(at.public, &self.target("websocket"), "");
        assert_eq!(answer.status(), 101, "{answer:?}");
        wire.write(&frame(TEXT, b"2probe"));
        assert_eq!(next(&mut wire), (TEXT, b"3probe".to_vec()));
        wire.write(&frame(TEXT, b"5"));
        wire
    }
}

/// What names a namespace in a packet.
fn behind(namespace: &str) -> String {
    match namespace {
        "/" => String::new(),
        namespace => format!("{namespace},"),
    }
}

fn ask(namespace: &str) -> String {
    let wanted = json!(["call:token", { "channelName": CHANNEL }]);
    format!("42{}{wanted}", behind(namespace))
}

fn token_in(event: &str) -> Value {
    let event: Value = serde_json::from_str(event).unwrap();
    assert_eq!(event[1]["channelName"], CHANNEL, "{event}");
    event[1]["token"].clone()
}

fn token_over(wire: &mut Wire) -> Value {
    wire.write(&frame(TEXT, ask("/").as_bytes()));
    loop {
        let (kind, content) = next(wire);
        let content = String::from_utf8(content).unwrap();
        if let (TEXT, Some(event)) = (kind, content.strip_prefix("42")) {
            return token_in(event);
        }
    }
}

/// Holds that a token publishes, for an hour.
fn publishes(app: &Express, token: &Value) {
    let read = app.inspect(token);
    assert_eq!(read["verified"], true, "{read}");
    assert_eq!(read["expire"], 3600, "{read}");
    let held = read["services"][0]["privileges"].as_object().unwrap();
    assert_eq!(held.len(), PUBLISHER, "{read}");
}

/// The keys of sessions' logins.
fn sessions(redis: &Redis) -> Vec<String> {
    let mut keys = redis.keys();
    keys.retain(|key| key.contains(":socket-logins:"));
    keys
}

/// Waits until the only session in Redis has its handshake and a namespace there.
fn is_told(renewd: &Renewd, redis: &Redis) {
    are_told(renewd, redis, 2);
}

/// Waits until the only session in Redis has so many logins there.
fn are_told(renewd: &Renewd, redis: &Redis, logins: i64) {
    renewd.eventually("the logins are told", |_| {
        let keys = sessions(redis);
        assert!(keys.len() <= 1, "{keys:?}");
        let all = |key: &String| redis.run(&format!("HLEN {key}")) == redis::Value::Int(logins);
        keys.first().is_some_and(all)
    });
}

#[test]
fn a_login_counts_at_every_replica_wherever_it_was_heard() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    // What was heard at one counts at the other a moment later.
    let publishes_at = |client: &mut Roaming, at: [&Renewd; 2]| {
        let mut token = Value::Null;
        at[1].eventually("the token publishes", |_| {
            token = client.token(at, "/");
            !token.is_null()
        });
        publishes(&app, &token);
    };
    for round in 0..5 {
        let mut owner = Roaming::open(&a, "");
        owner.post(&b, &connect("/", ASTROLOGER));
        owner.wait(&b, "40");
        publishes(&app, &owner.token([&b, &b], "/"));
        publishes_at(&mut owner, [&b, &a]);
        publishes(&app, &owner.token([&a, &b], "/"));
        // The handshake's.
        let bearer = format!("Authorization: Bearer {}\r\n", login(ASTROLOGER));
        let mut owner = Roaming::open(&a, &bearer);
        owner.post(&b, "40");
        owner.wait(&b, "40");
        publishes_at(&mut owner, [&a, &b]);
        publishes(&app, &owner.token([&b, &a], "/"));
        // Nobody's, at either and at both.
        for at in [[&a, &a], [&b, &b], [&a, &b], [&b, &a]] {
            let mut nobody = Roaming::connected(at[0], "40");
            assert_eq!(nobody.token(at, "/"), Value::Null, "{round}");
            let mut viewer = Roaming::connected(at[1], &connect("/", VIEWER));
            assert_eq!(viewer.token(at, "/"), Value::Null, "{round}");
        }
    }
}

#[test]
fn each_namespace_has_its_latest_login_at_every_replica() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    let mut client = Roaming::connected(&a, &connect("/", VIEWER));
    is_told(&a, &redis);
    client.post(&b, &connect("/calls", ASTROLOGER));
    client.wait(&b, "40/calls,");
    for at in [[&b, &b], [&a, &a]] {
        at[0].eventually("the namespace has its login", |_| {
            !client.token(at, "/calls").is_null()
        });
        assert_eq!(client.token(at, "/"), Value::Null);
    }
    // Out of the namespace, and into it with another login: at the one replica, and then at the other without any.
    for (heard, packet, is_owner) in [
        (&b, connect("/", ASTROLOGER), true),
        (&a, connect("/", VIEWER), false),
        (&b, connect("/", ASTROLOGER), true),
        (&a, "40".to_owned(), false),
    ] {
        client.post(heard, "41");
        client.post(heard, &packet);
        client.wait(heard, "40{");
        assert_eq!(!client.token([heard, heard], "/").is_null(), is_owner);
        for at in [[&a, &b], [&b, &a]] {
            at[1].eventually(&packet, |_| client.token(at, "/").is_null() != is_owner);
        }
    }
}

#[test]
fn bytes_have_the_login_of_their_events_namespace_at_every_replica() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    let mut talkers = Talkers::start();
    talkers.open("direct", app.address, "", &json!({}));
    let wanted = json!({ "channelName": CHANNEL });
    let token = talkers.ask("direct", "call:token", &wanted)["token"].clone();
    let bytes = STANDARD.encode(json!({ "token": token }).to_string());
    let mut client = Roaming::connected(&a, &connect("/", VIEWER));
    client.post(&a, &connect("/calls", ASTROLOGER));
    client.wait(&a, "40/calls,");
    are_told(&a, &redis, 3);
    for (at, namespace, is_owner) in [(&b, "/calls", true), (&a, "/calls", true), (&b, "/", false)]
    {
        let namespace = behind(namespace);
        let sent = json!(["bytes", { "_placeholder": true, "num": 0 }]);
        client.post(at, &format!("451-{namespace}7{sent}\u{1e}b{bytes}"));
        client.wait(at, &format!("461-{namespace}7"));
        let back = STANDARD.decode(client.wait(at, "b")).unwrap();
        let back: Value = serde_json::from_slice(&back).unwrap();
        if is_owner {
            publishes(&app, &back["token"]);
        } else {
            assert_eq!(back["token"], Value::Null);
        }
    }
}

#[test]
fn an_upgrade_at_another_replica_keeps_the_logins_for_good() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    for (packet, is_owner) in [
        (connect("/", ASTROLOGER), true),
        (connect("/", VIEWER), false),
        ("40".to_owned(), false),
    ] {
        redis.run("FLUSHALL");
        let client = Roaming::connected(&a, &packet);
        is_told(&a, &redis);
        let mut wire = client.upgrade(&b);
        assert_eq!(!token_over(&mut wire).is_null(), is_owner);
        // What is forgotten elsewhere is known to the tunnel's replica.
        redis.run("FLUSHALL");
        let token = token_over(&mut wire);
        assert_eq!(!token.is_null(), is_owner);
        if is_owner {
            publishes(&app, &token);
        }
    }
}

#[test]
fn an_upgrade_alone_makes_the_logins_known_where_the_tunnel_is() {
    let (app, mut redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    let client = Roaming::connected(&a, &connect("/", ASTROLOGER));
    is_told(&a, &redis);
    let asked = || b.whole(r#"renewd_source_lookups_total{source="redis",outcome="miss"}"#);
    let before = asked();
    let mut wire = client.upgrade(&b);
    b.eventually("the tunnel's logins are asked for", |_| asked() > before);
    redis.kill();
    publishes(&app, &token_over(&mut wire));
}

#[test]
fn without_an_answer_of_the_store_what_a_replica_knows_counts() {
    let (app, mut redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, ""), replica(&app, &redis, ""));
    let mut before = Roaming::connected(&a, &connect("/", ASTROLOGER));
    let mut learnt = Roaming::connected(&a, &connect("/", ASTROLOGER));
    b.eventually("the login is learnt", |b| {
        !learnt.token([b, b], "/").is_null()
    });
    for kills in [false, true] {
        if kills {
            redis.kill();
        } else {
            redis.freeze();
        }
        let mut since = Roaming::connected(&a, &connect("/", ASTROLOGER));
        publishes(&app, &before.token([&a, &a], "/"));
        publishes(&app, &since.token([&a, &a], "/"));
        publishes(&app, &learnt.token([&b, &b], "/"));
        for unknown in [&mut before, &mut since] {
            assert_eq!(unknown.token([&b, &b], "/"), Value::Null);
        }
        if kills {
            redis.restart();
        } else {
            redis.thaw();
        }
        for renewd in [&a, &b] {
            is_shared(renewd);
        }
        // What was heard meanwhile is told with the session's next uses.
        b.eventually("the other replica learns of it", |b| {
            publishes(&app, &since.token([&a, &a], "/"));
            !since.token([b, b], "/").is_null()
        });
        before = Roaming::connected(&a, &connect("/", ASTROLOGER));
    }
}

/// All that lies in Redis, as bytes.
fn contents(redis: &Redis) -> Vec<u8> {
    let script = "local all = {} \
        for _, key in ipairs(redis.call('KEYS', '*')) do \
          all[#all + 1] = key \
          local kind = redis.call('TYPE', key).ok \
          if kind == 'hash' then for _, part in ipairs(redis.call('HGETALL', key)) do all[#all + 1] = part end \
          elseif kind == 'zset' then for _, part in ipairs(redis.call('ZRANGE', key, 0, -1)) do all[#all + 1] = part end \
          elseif kind == 'string' then all[#all + 1] = redis.call('GET', key) \
          else all[#all + 1] = redis.call('DUMP', key) end \
        end \
        return table.concat(all, ' ')";
    let contents = redis.run_words(&["EVAL", script, "0"]);
    redis::from_redis_value(contents).unwrap()
}

fn holds(contents: &[u8], text: &str) -> bool {
    let mut windows = contents.windows(text.len());
    windows.any(|window| window == text.as_bytes())
}

#[test]
fn no_login_and_no_id_lies_readable_in_the_store_nor_for_long() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let a = replica(&app, &redis, NEAR);
    let bearer = login(VIEWER);
    let client = Roaming::open(&a, &format!("Authorization: Bearer {bearer}\r\n"));
    let packet = connect("/calls", ASTROLOGER);
    client.post(&a, &packet);
    let key = || sessions(&redis).pop();
    a.eventually("the logins are told", |_| {
        key().is_some_and(|key| redis.run(&format!("HLEN {key}")) == redis::Value::Int(2))
    });
    assert_eq!(sessions(&redis).len(), 1);
    let contents = contents(&redis);
    assert!(holds(&contents, &key().unwrap()));
    let auth: Value = serde_json::from_str(packet.strip_prefix("40/calls,").unwrap()).unwrap();
    let heard = auth["token"].as_str().unwrap();
    let parts = [&*bearer, heard].into_iter().flat_map(|jwt| jwt.split('.'));
    for text in parts.chain([&*client.id, "calls", "eyJ"]) {
        assert!(!holds(&contents, text), "{text}");
    }
    let lives = redis.run(&format!("PTTL {}", key().unwrap()));
    let lives: u64 = redis::from_redis_value(lives).unwrap();
    assert!((1..=20 * 60 * 1000).contains(&lives), "{lives}");
}

#[test]
fn a_session_that_the_backend_has_not_opened_is_not_kept_in_the_store() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let a = replica(&app, &redis, NEAR);
    let made_up = Roaming {
        id: "AAAAAAAAAAAAAAAAAAAA".to_owned(),
        packets: Vec::new(),
    };
    let fields = "Content-Type: text/plain;charset=UTF-8\r\nConnection: close\r\n";
    let packet = connect("/", ASTROLOGER);
    let asked = request("POST", made_up.target("polling"), fields, &packet);
    assert_eq!(send(a.public, &asked).status, 400);
    // One that was opened later is there, and it alone.
    let _client = Roaming::connected(&a, "40");
    a.eventually("a session is told", |_| !sessions(&redis).is_empty());
    assert_eq!(sessions(&redis).len(), 1);
}

#[test]
fn a_session_has_a_bounded_part_of_the_store() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    let mut client = Roaming::connected(&a, &connect("/", ASTROLOGER));
    is_told(&a, &redis);
    let key = sessions(&redis).pop().unwrap();
    let figure = |command: &str| -> usize {
        redis::from_redis_value(redis.run(&format!("{command} {key}"))).unwrap()
    };
    let bytes = || {
        let all: Vec<Vec<u8>> =
            redis::from_redis_value(redis.run(&format!("HGETALL {key}"))).unwrap();
        all.iter().map(Vec::len).sum::<usize>()
    };
    // The backend has no such namespaces.
    for number in 0..30 {
        client.post(&a, &connect(&format!("/none{number}"), VIEWER));
    }
    a.eventually("as many namespaces are told as are kept", |_| {
        figure("HLEN") == 17
    });
    publishes(&app, &client.token([&b, &b], "/"));
    let long = json!({ "token": "x".repeat(15 * 1024) });
    for number in 0..15 {
        client.post(&a, &format!("40/none{number},{long}"));
    }
    a.eventually("what has no room is gone", |_| figure("HLEN") < 10);
    assert!(bytes() <= 64 * 1024);
    publishes(&app, &client.token([&b, &b], "/"));
    publishes(&app, &client.token([&a, &a], "/"));
}

#[test]
fn the_logins_of_one_session_do_not_count_under_the_key_of_another() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let (a, b) = (replica(&app, &redis, NEAR), replica(&app, &redis, NEAR));
    let told = |before: &[String]| {
        let mut key = String::new();
        a.eventually("a session's login is told", |_| {
            let mut found = sessions(&redis);
            found.retain(|key| !before.contains(key));
            let Some(found) = found.pop() else {
                return false;
            };
            key = found;
            redis.run(&format!("HLEN {key}")) == redis::Value::Int(2)
        });
        key
    };
    let mut owner = Roaming::connected(&a, &connect("/", ASTROLOGER));
    let owners = told(&[]);
    let mut nobody = Roaming::connected(&a, "40");
    let nobodys = told(std::slice::from_ref(&owners));
    // Under the owner's fields, and each value under each of the other's.
    let copy = "local from = redis.call('HGETALL', KEYS[1]) \
        local fields = redis.call('HKEYS', KEYS[2]) \
        for at = 1, #from, 2 do \
          redis.call('HSET', KEYS[2], from[at], from[at + 1]) \
        end \
        for _, field in ipairs(fields) do redis.call('HSET', KEYS[2], field, from[2]) end \
        return #fields";
    let copied = redis.run_words(&["EVAL", copy, "2", &owners, &nobodys]);
    assert_eq!(copied, redis::Value::Int(2));
    assert_eq!(nobody.token([&b, &b], "/"), Value::Null);
    publishes(&app, &owner.token([&b, &b], "/"));
}

#[test]
fn an_observed_socket_waits_for_no_store() {
    let (app, redis) = (start(Version::Four), Redis::start());
    let lines = "timeout = \"10s\"\n[reissue]\nmode = \"observe\"";
    let a = replica(&app, &redis, lines);
    redis.freeze();
    let mut nobody = Roaming::connected(&a, "40");
    let read = app.inspect(&nobody.token([&a, &a], "/"));
    assert_eq!(read["expire"], 24 * 3600);
}
