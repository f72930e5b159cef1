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
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : `${minutes} min`;
}

function problem({ message, key, file, line, column }) {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  return [place, key, message].filter(Boolean).join(": ");
}

function show(status) {
  const { config, sessions } = status;
  const down = [...status.upstreams, ...status.sources].filter((part) => !part.up);
  const well = status.phase === "running" && config.last_reload_successful && !config.fallback && !down.length;
  const summary = byId("summary");
  summary.className = well ? "good" : "bad";
  summary.textContent = well ? "Everything works." :
    status.phase !== "running" ? `The process is ${status.phase}.` :
    down.length ? `No answer from ${down.map((part) => part.server || part.source).join(", ")}.` :
    config.fallback ? "Running on the last valid configuration: the file was invalid at start." :
    "The last reload failed; the former configuration stays in force.";
  facts("process-facts", [
    ["version", status.version],
    ["phase", status.phase, status.phase === "running"],
    ["running for", since(status.uptime_seconds)],
    ["mode", status.mode === "enforce" && status.enforce_percent < 100 ? `enforce ${status.enforce_percent} %` : status.mode],
    ["connections", status.connections],
  ]);
  facts("config-facts", [
    ["file", config.path],
    ["hash", config.hash],
    ["loaded", config.loaded_at],
    ["last reload", `${config.last_reload_at} ${config.last_reload_successful ? "succeeded" : "failed"}`, config.last_reload_successful],
    ["restart required", config.restart_required.join(", ") || "no", !config.restart_required.length],
  ]);
  byId("problems").replaceChildren(...config.problems.map((each) => {
    const item = document.createElement("li");
    item.textContent = problem(each);
    return item;
  }));
  facts("upstream-facts", status.upstreams.map(({ server, up }) => [server, up ? "up" : "down", up]));
  facts("source-facts", status.sources.map(({ source, up, error }) => [source, up ? "up" : error || "down", up]));
  facts("session-facts", [["publishers", sessions.publishers], ["subscribers", sessions.subscribers]]);
}

function ask(visible) {
  byId("access").hidden = !visible;
  byId("status").hidden = visible;
}

async function refresh() {
  clearTimeout(timer);
  const token = sessionStorage.getItem("token");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  try {
    const response = await fetch("/v1/status", { headers, cache: "no-store" });
    const body = await response.json();
    if (response.ok) {
      ask(false);
      show(body);
      timer = setTimeout(refresh, REFRESH);
    } else {
      sessionStorage.removeItem("token");
      ask(true);
      byId("summary").className = token ? "bad" : "";
      byId("summary").textContent = token || response.status !== 401 ? body.message : "Status needs the admin token.";
    }
  } catch {
    byId("summary").className = "bad";
    byId("summary").textContent = "The admin listener doesn't answer.";
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
