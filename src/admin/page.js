"use strict";
const REFRESH = 5000;
const PAGE = 50;
const byId = (id) => document.getElementById(id);
// In memory alone: whoever opens the tab's history or storage finds no token.
let token = "";
let timer;

// === Elements

// Text is set as text: what clients have sent can't become markup.
function element(name, text, look) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (look) made.className = look;
  return made;
}

// On a phone the rows are no table to the eye, but still one to a screen reader: the roles say so.
function row(head, cells) {
  const made = element("tr");
  const name = element("th", ...(head instanceof Node ? [] : [head]));
  name.scope = "row";
  name.setAttribute("role", "rowheader");
  if (head instanceof Node) name.append(head);
  made.setAttribute("role", "row");
  made.append(name, ...cells.map(([label, content, look]) => {
    const cell = element("td", content instanceof Node ? undefined : content, look);
    if (content instanceof Node) cell.append(content);
    cell.setAttribute("role", "cell");
    cell.dataset.label = label;
    return cell;
  }));
  return made;
}

function button(text, label, act) {
  const made = element("button", text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

// A screen reader says a status again whenever it is set.
function say(id, text, look = "") {
  const place = byId(id);
  place.className = look;
  if (place.textContent !== text) place.textContent = text;
}

function facts(id, rows) {
  byId(id).replaceChildren(...rows.map(([term, value, look]) => {
    const pair = element("div");
    pair.append(element("dt", term), element("dd", value, look));
    return pair;
  }));
}

// Replaces a list only where it has changed, so that the keyboard's focus stays where it is.
const shown = new Map();
function list(id, entries, make) {
  const written = JSON.stringify(entries);
  if (shown.get(id) === written) return;
  shown.set(id, written);
  byId(id).replaceChildren(...entries.map(make));
}

// === Words

const upDown = (up) => (up ? "good" : "bad");

function since(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  return days ? `${days} d ${hours} h` : hours ? `${hours} h${minutes ? ` ${minutes} min` : ""}` : minutes ? `${minutes} min` : `${seconds} s`;
}

// RFC 3339 as people read it; the log has the same times.
const time = (rfc3339) => rfc3339.replace("T", " ").replace("Z", " UTC");
const readable = (message) => message.replace(/\d{4}-\d\d-\d\dT[\d:]{8}Z/g, time);
const clock = (rfc3339) => rfc3339.slice(11, 19);

const round = (number) => (number >= 100 || number === 0 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2));
const perSecond = (number) => `${round(number)}/s`;

// Two failures in 100,000 must not read as 100 %.
function percent(share) {
  if (share === null) return "nobody asked";
  const rounded = (share * 100).toFixed(2);
  return `${share < 1 && rounded === "100.00" ? "99.99" : rounded.replace(/\.?0+$/, "")} %`;
}

const latency = (milliseconds) => (milliseconds === undefined ? "" : `, ${round(milliseconds)} ms`);

function problem({ message, key, file, line, column, hint }) {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return [place, key, message].filter(Boolean).join(": ") + (hint ? ` (${hint})` : "");
}

const user = ({ uid, account }) => (account === undefined ? `uid ${uid}` : `account ${account}`);

function target(entry) {
  const named = { subject: entry.subject, channel: entry.channel, uid: entry.uid, account: entry.account };
  return Object.entries(named).filter(([, value]) => value !== undefined).map((pair) => pair.join(" ")).join(", ");
}

// === Asking

function authorization() {
  return token ? { authorization: `Bearer ${token}` } : {};
}

const get = (path) => fetch(path, { headers: authorization(), cache: "no-store", signal: AbortSignal.timeout(REFRESH) });

// Changes: the answer's body, or an error that says why not. A revocation may wait for the disk.
async function change(method, path, body) {
  const headers = { ...authorization(), "content-type": "application/json" };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, headers, body: sent, signal: AbortSignal.timeout(4 * REFRESH) });
  } catch {
    throw new Error("The admin listener doesn't answer. The change may or may not be in force.");
  }
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.message), { answer });
  return answer;
}

// === What is shown

// The verdict is the daemon's own list of conditions, the same that the alerts have.
function verdict({ phase, conditions }) {
  if (phase !== "running") return [`The process is ${phase}.`, "bad"];
  const [worst, ...more] = conditions.filter(({ severity }) => severity !== "info");
  if (!worst) return ["Everything works.", "good"];
  const text = more.length ? `${worst.message} And ${more.length} more.` : worst.message;
  return [readable(text), worst.severity === "critical" ? "bad" : "warning"];
}

function condition({ alert, severity, message, remedy }) {
  const item = element("li");
  item.append(element("strong", severity, severity === "critical" ? "bad" : severity), ` ${readable(message)} `, element("code", alert, "soft"));
  if (remedy) {
    const line = element("p", "", "remedy");
    line.append(element("code", remedy));
    item.append(line);
  }
  return item;
}

function source({ source: name, up, error, doubt, latency_ms: took, down_since: from, rest_until: until }) {
  const parts = up ? [`up${latency(took)}`, doubt && `but ${doubt}`] :
    [error || "down", from && `since ${time(from)}`, until && `holders can renew until ${time(until)}`];
  return [name, parts.filter(Boolean).join("; "), up && doubt ? "warning" : upDown(up)];
}

function show(status) {
  const { config, sessions, conditions } = status;
  const [text, look] = verdict(status);
  document.body.classList.remove("stale");
  document.title = look === "good" ? "renewd: works" : `renewd: ${look === "bad" ? "critical" : "warning"}`;
  say("summary", text, look);
  byId("as-of").textContent = `as of ${time(status.as_of)}`;
  byId("attention").hidden = !conditions.length;
  list("conditions", conditions, condition);
  facts("process-facts", [
    ["version", status.version],
    ["phase", status.phase, upDown(status.phase === "running")],
    ["running for", since(status.uptime_seconds)],
    ["mode", status.mode === "enforce" && status.enforce_percent < 100 ? `enforce ${status.enforce_percent} %` : status.mode],
    ...(status.draining_publishers ? [["publishers still renewing here", status.draining_publishers]] : []),
    ["connections", status.connections],
  ]);
  facts("config-facts", [
    ["file", config.path],
    ["hash", config.hash],
    ["in force since", time(config.loaded_at)],
    ["last load", time(config.last_reload_at)],
    ["its result", config.last_reload_successful ? "valid" : "refused", upDown(config.last_reload_successful)],
    ["restart required", config.restart_required.join(", ") || "no", config.restart_required.length ? "warning" : "good"],
  ]);
  list("problems", config.problems, (each) => element("li", problem(each), "bad"));
  list("warnings", config.warnings, (each) => element("li", problem(each), "warning"));
  facts("upstream-facts", status.upstreams.map(({ server, up, reason, latency_ms: took }) =>
    [server, up ? `up${latency(took)}` : `down: ${reason}`, upDown(up)]));
  facts("source-facts", status.sources.map(source));
  facts("session-facts", [["publishers", sessions.publishers], ["subscribers", sessions.subscribers]]);
}

// === The chart

const LINES = ["refreshes", "others", "refused", "failed"];

// A line over the steps. Failures are bars, which tells them apart without a colour, and are nothing where there are none.
function line(values, top, look) {
  const svg = byId("chart");
  const path = document.createElementNS(svg.namespaceURI, "path");
  const last = Math.max(values.length - 1, 1);
  const steps = values.map((value, index) => {
    const [x, y] = [(index / last * 716 + 2).toFixed(1), (158 - value / top * 154).toFixed(1)];
    return look === "failed" ? (value ? `M${x} 160V${y}` : "") : `${index ? "L" : "M"}${x} ${y}`;
  });
  path.setAttribute("d", steps.join(""));
  path.setAttribute("class", look);
  return path;
}

function showTraffic({ step_seconds: step, points, answered, publishers_answered: publishers, refusals }) {
  const rates = Object.fromEntries(LINES.map((name) => [name, points[name].map((count) => count / step)]));
  const top = Math.max(...Object.values(rates).flat(), 0.1);
  const now = (name) => rates[name].at(-1) ?? 0;
  facts("traffic-facts", [
    ["answered", percent(answered), answered !== null && answered < 0.999 ? "bad" : "good"],
    ["publishers answered", percent(publishers), publishers !== null && publishers < 0.999 ? "bad" : "good"],
    ["refreshes now", perSecond(now("refreshes"))],
    ["first tokens now", perSecond(now("others"))],
    ["refused now", perSecond(now("refused"))],
    ["failed now", perSecond(now("failed")), now("failed") ? "bad" : ""],
  ]);
  const title = byId("chart-title");
  title.textContent = `Token requests per second over ${since(rates.refreshes.length * step)}, at most ${perSecond(top)}. ` +
    `Now ${LINES.map((name) => `${name === "others" ? "first tokens" : name} ${perSecond(now(name))}`).join(", ")}.`;
  byId("chart").replaceChildren(title, ...LINES.map((name) => line(rates[name], top, name)));
  byId("chart-start").textContent = `${since(rates.refreshes.length * step)} ago`;
  byId("chart-top").textContent = perSecond(top);
  byId("refused").hidden = !refusals.length;
  list("refusals", refusals, ({ code, class: kind, count, publishers: of, meaning }) => {
    const name = element("code", code, kind === "failed" ? "bad" : "");
    return row(name, [["requests", count, "number"], ["publishers", of, of ? "number warning" : "number"], ["", meaning, "meaning"]]);
  });
}

// === Sessions

let asked = "";

async function search(cursor) {
  const query = new URLSearchParams({ limit: PAGE, ...(cursor ? { cursor } : {}) });
  if (!cursor) asked = byId("search-for").value.trim();
  if (asked) query.set(byId("search-by").value, asked);
  const response = await get(`/v1/sessions?${query}`).catch(() => undefined);
  const body = await response?.json();
  if (!response?.ok) return say("found", body?.message ?? "The admin listener doesn't answer.", "bad");
  const rows = body.sessions.map(holder);
  if (cursor) byId("holders").append(...rows);
  else byId("holders").replaceChildren(...rows);
  const count = byId("holders").childElementCount;
  byId("results").hidden = !count;
  byId("more").hidden = !body.cursor;
  byId("more").onclick = () => search(body.cursor);
  say("found", count ? `${count} shown${body.cursor ? "; there are more" : ""}.` : "No live token has this name.");
}

function holder(session) {
  const of = target(session);
  const actions = element("div", undefined, "actions");
  actions.append(
    button("Explain", `Explain the decision about ${of}`, () => explain(session)),
    button("Revoke", `Revoke ${of}`, () => askToRevoke(session)),
  );
  const expires = element("span", clock(session.expires));
  expires.title = time(session.expires);
  return row(session.subject, [
    ["", session.channel],
    ["", user(session)],
    ["", session.role],
    ["expires", expires],
    ["renewed", session.refreshes, "number"],
    ["", actions],
  ]);
}

async function explain({ subject, channel, uid, account, role }) {
  const query = new URLSearchParams({ subject, channel, role, ...(account === undefined ? { uid } : { account }) });
  const response = await get(`/v1/explain?${query}`).catch(() => undefined);
  const body = await response?.json();
  byId("explanation-title").textContent = `${subject} in ${channel} as ${role}`;
  if (response?.ok) {
    say("explanation-outcome", body.code === "ok" ? "A refresh now would get a token." : `A refresh now would get ${body.status} ${body.code}.`, body.code === "ok" ? "good" : "bad");
    byId("explanation-steps").replaceChildren(...body.steps.map(({ step, verdict: said, detail, source: by, age_ms: age }) => {
      const item = element("li");
      const look = { passes: "good", refuses: "bad", no_answer: "bad", rides_through: "warning" }[said] ?? "";
      item.append(element("strong", step), " ", element("span", said.replace("_", " "), look), `: ${detail} `,
        element("span", `(${by}${age === undefined ? "" : `, ${since(Math.round(age / 1000))} old`})`, "soft"));
      return item;
    }));
  } else {
    say("explanation-outcome", body?.message ?? "The admin listener doesn't answer.", "bad");
    byId("explanation-steps").replaceChildren();
  }
  byId("explanation").showModal();
}

// === Revocations

let chosen = [];

function askToRevoke({ subject, channel, uid, account }) {
  const person = account === undefined ? { uid } : { account };
  chosen = [
    [`${subject}, everywhere`, { subject }],
    [`${subject}, in ${channel} alone`, { subject, channel }],
    ...(uid === 0 ? [] : [[`${user({ uid, account })} in ${channel}, whoever holds it`, { channel, ...person }]]),
    [`everybody in ${channel}`, { channel }],
  ];
  byId("targets").replaceChildren(...chosen.map(([text], index) => {
    const label = element("label");
    const choice = element("input");
    Object.assign(choice, { type: "radio", name: "target", value: index, checked: index === 0 });
    label.append(choice, ` ${text}`);
    return label;
  }));
  byId("reason").value = "";
  say("revocation-problem", "", "bad");
  byId("revocation").showModal();
}

async function revoke(event) {
  event.preventDefault();
  const [text, named] = chosen[Number(new FormData(byId("revoke")).get("target"))];
  const reason = byId("reason").value.trim();
  try {
    const made = await change("POST", "/v1/revocations", { ...named, for: byId("lifetime").value, ...(reason ? { reason } : {}) });
    byId("revocation").close();
    const { count, last_expires: until } = made.outstanding;
    say("done", `Revoked: ${text}. ${count ? `${count === 1 ? "1 token stays" : `${count} tokens stay`} valid at Agora until ${time(until)} at the latest. ` : ""}`);
    byId("done").append(button("Undo", `Undo the revocation of ${text}`, () => lift(made.id, text)));
  } catch (error) {
    say("revocation-problem", error.message, "bad");
  }
  refresh();
}

async function lift(id, text) {
  try {
    await change("DELETE", `/v1/revocations/${id}`);
    say("done", `${text}: tokens are issued again.`);
  } catch (error) {
    say("done", error.message, "bad");
  }
  refresh();
}

// How far the removal of a revocation's users from their channels is.
function removal({ error, ...states }) {
  const counts = Object.entries(states).filter(([, count]) => count).map(([state, count]) => `${count} ${state.replace("_", " ")}`);
  return [counts.join(", ") || "none", error].filter(Boolean).join("; ");
}

function revocation(entry) {
  const item = element("li");
  const of = target(entry);
  const act = () => confirm(`Give tokens to ${of} again?`) && lift(entry.id, of);
  const reason = entry.reason ? ` (${entry.reason})` : "";
  const removed = entry.ejections ? `; removal from channels: ${removal(entry.ejections)}` : "";
  item.append(element("span", `${of} until ${time(entry.until)}${reason}${removed}`), button("Lift", `Lift the revocation of ${of}`, act));
  return item;
}

function showRevocations(count, { revocations, cursor }) {
  byId("revoked").hidden = !count;
  byId("revocation-count").hidden = !cursor;
  byId("revocation-count").textContent = `The latest ${revocations.length} of ${count}; renewd revocations lists all.`;
  list("revocation-list", revocations, revocation);
}

// === The rest

async function reload() {
  byId("reload").disabled = true;
  try {
    const { changed } = await change("POST", "/-/reload", {});
    say("reloaded", changed.length ? `In force: ${changed.join(", ")}.` : "Nothing had changed.", "good");
  } catch (error) {
    say("reloaded", error.message, "bad");
  }
  byId("reload").disabled = false;
  refresh();
}

function ask(visible) {
  byId("access").hidden = !visible;
  byId("status").hidden = visible;
}

async function refresh() {
  clearTimeout(timer);
  try {
    const response = await get("/v1/status");
    const body = await response.json();
    if (response.ok) {
      const [traffic, revoked] = await Promise.all(["/v1/traffic", "/v1/revocations?limit=20"].map(async (path) => (await get(path)).json()));
      ask(false);
      show(body);
      showTraffic(traffic);
      showRevocations(body.revocations, revoked);
      timer = setTimeout(refresh, REFRESH);
    } else {
      const wrong = token !== "";
      token = "";
      ask(true);
      say("summary", response.status !== 401 ? body.message : wrong ? "That is not the admin token." : "Status needs the admin token.", wrong ? "bad" : "");
      byId("token").focus();
    }
  } catch {
    // What is shown was true once: grey, so that nobody takes it for now.
    document.body.classList.add("stale");
    say("summary", "The admin listener doesn't answer. What is below is old.", "bad");
    timer = setTimeout(refresh, REFRESH);
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  refresh();
});
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
byId("revoke").addEventListener("submit", revoke);
byId("cancel").addEventListener("click", () => byId("revocation").close());
byId("reload").addEventListener("click", reload);
refresh();
