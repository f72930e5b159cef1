"use strict";
const REFRESH = 5000;
const byId = (id) => document.getElementById(id);
let timer;

function facts(id, rows) {
  const list = byId(id);
  list.replaceChildren();
  for (const [term, value, good] of rows) {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = value;
    if (good !== undefined) dd.className = good ? "good" : "bad";
    list.append(dt, dd);
  }
}

function since(seconds) {
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${seconds} s`;
}

// RFC 3339 as people read it; the log has the same times.
const time = (rfc3339) => rfc3339.replace("T", " ").replace("Z", " UTC");

function problem({ message, key, file, line, column, hint }) {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return [place, key, message].filter(Boolean).join(": ") + (hint ? ` (${hint})` : "");
}

// The verdict is the daemon's own list of conditions, the same that the alerts have.
function verdict({ phase, conditions }) {
  if (phase !== "running") return [`The process is ${phase}.`, "bad"];
  const [worst] = conditions.filter(({ severity }) => severity !== "info");
  if (!worst) return ["Everything works.", "good"];
  const more = conditions.filter(({ severity }) => severity !== "info").length - 1;
  return [more ? `${worst.message} And ${more} more.` : worst.message, worst.severity === "critical" ? "bad" : "warning"];
}

function condition({ alert, severity, message }) {
  const item = document.createElement("li");
  const label = document.createElement("strong");
  const name = document.createElement("code");
  item.className = severity === "critical" ? "bad" : severity;
  label.textContent = severity;
  name.textContent = alert;
  item.append(label, ` ${message} `, name);
  return item;
}

function show(status) {
  const { config, sessions, conditions } = status;
  const [text, look] = verdict(status);
  document.body.classList.remove("stale");
  byId("summary").className = look;
  byId("summary").textContent = text;
  byId("as-of").textContent = `as of ${time(status.as_of)}`;
  byId("attention").hidden = !conditions.length;
  byId("conditions").replaceChildren(...conditions.map(condition));
  facts("process-facts", [
    ["version", status.version],
    ["phase", status.phase, status.phase === "running"],
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
    ["its result", config.last_reload_successful ? "valid" : "refused", config.last_reload_successful],
    ["restart required", config.restart_required.join(", ") || "no", !config.restart_required.length],
  ]);
  byId("problems").replaceChildren(...config.problems.map((each) => {
    const item = document.createElement("li");
    item.textContent = problem(each);
    return item;
  }));
  facts("upstream-facts", status.upstreams.map(({ server, up }) => [server, up ? "up" : "down", up]));
  facts("source-facts", status.sources.map(({ source, up, error, doubt, down_since: since, rest_until: until }) =>
    [source, up ? doubt ? `up; but ${doubt}` : "up" : [error || "down", since && `since ${time(since)}`, until && `holders can renew until ${time(until)}`].filter(Boolean).join("; "), up]));
  facts("session-facts", [["publishers", sessions.publishers], ["subscribers", sessions.subscribers]]);
}

function removal({ error, ...states }) {
  const counts = Object.entries(states).filter(([, count]) => count).map(([state, count]) => `${count} ${state.replace("_", " ")}`);
  return [counts.join(", ") || "none", error].filter(Boolean).join("; ");
}

function revocation({ id, subject, channel, uid, account, until, reason, ejections }) {
  const item = document.createElement("li");
  const lift = document.createElement("button");
  const named = { subject, channel, uid, account };
  const target = Object.entries(named).filter(([, value]) => value !== undefined).map((pair) => pair.join(" ")).join(", ");
  lift.textContent = "Lift";
  lift.title = id;
  lift.setAttribute("aria-label", `Lift the revocation of ${target}`);
  lift.addEventListener("click", async () => {
    if (!confirm(`Give tokens to ${target} again?`)) return;
    lift.disabled = true;
    await fetch(`/v1/revocations/${id}`, { method: "DELETE", headers: authorization(), signal: AbortSignal.timeout(REFRESH) }).catch(() => {});
    refresh();
  });
  item.append(`${target} until ${time(until)}${reason ? ` (${reason})` : ""}${ejections ? `; removal from channels: ${removal(ejections)}` : ""} `, lift);
  return item;
}

function showRevocations(count, { revocations, cursor }) {
  byId("revoked").hidden = !count;
  byId("revocation-count").hidden = !cursor;
  byId("revocation-count").textContent = `The latest ${revocations.length} of ${count}; renewd revocations lists all.`;
  byId("revocation-list").replaceChildren(...revocations.map(revocation));
}

function authorization() {
  const token = sessionStorage.getItem("token");
  return token ? { authorization: `Bearer ${token}` } : {};
}

const get = (path) => fetch(path, { headers: authorization(), cache: "no-store", signal: AbortSignal.timeout(REFRESH) });

function ask(visible) {
  byId("access").hidden = !visible;
  byId("status").hidden = visible;
}

async function refresh() {
  clearTimeout(timer);
  const token = sessionStorage.getItem("token");
  try {
    const response = await get("/v1/status");
    const body = await response.json();
    if (response.ok) {
      const revoked = await get("/v1/revocations?limit=20");
      ask(false);
      show(body);
      showRevocations(body.revocations, await revoked.json());
      timer = setTimeout(refresh, REFRESH);
    } else {
      sessionStorage.removeItem("token");
      ask(true);
      byId("summary").className = token ? "bad" : "";
      byId("summary").textContent = response.status !== 401 ? body.message :
        token ? "That is not the admin token." : "Status needs the admin token.";
    }
  } catch {
    // What is shown was true once: grey, so that nobody takes it for now.
    document.body.classList.add("stale");
    byId("summary").className = "bad";
    byId("summary").textContent = "The admin listener doesn't answer. What is below is old.";
    timer = setTimeout(refresh, REFRESH);
  }
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value.trim());
  byId("token").value = "";
  refresh();
});
refresh();
