// node look.mjs ADDRESS TOKEN CHANNEL SUBJECT PID: uses the status page in Chromium as an operator does, by the keyboard,
// in daylight on a desk and at night on a phone, and then kills the daemon, whose process is PID. Exits with 1 and says
// what is wrong.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [address, token, channel, subject, pid] = process.argv.slice(2);
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const views = [
  { colorScheme: "light", viewport: { width: 1200, height: 900 } },
  { colorScheme: "dark", viewport: { width: 375, height: 812 } },
];

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium-headless-shell",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"],
});
try {
  for (const view of views) await look(view);
} finally {
  await browser.close();
}

async function look(view) {
  const context = await browser.newContext(view);
  context.setDefaultTimeout(30_000);
  // An init script is the browser's own, which the page's policy doesn't concern.
  await context.addInitScript({ path: axe });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  // A 401 is what the page asks for the token by.
  page.on("console", (message) => message.type() === "error" && !message.text().includes("401") && problems.push(message.text()));

  // What is wrong for somebody with a screen reader, or weak eyes.
  const accessible = async (state) => {
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join("; ")}`);
    assert.deepEqual(found, [], state);
  };
  const says = (id, text) => page.waitForFunction(([id, text]) => document.getElementById(id).textContent.includes(text), [id, text]);
  const press = (name) => page.getByRole("button", { name }).first().press("Enter");

  await page.goto(address);
  await page.getByLabel("Admin token").waitFor();
  await accessible("asking for the token");
  for (const [text, answer] of [["wrong", "That is not the admin token."], [token, "backend"]]) {
    await page.getByLabel("Admin token").fill(text);
    await page.keyboard.press("Enter");
    await says("summary", answer);
  }
  await page.locator("#status").waitFor();
  assert.equal(await page.locator("#chart path").count(), 4);
  await says("refusals", "not_owner");

  await page.getByLabel("Name").fill(channel);
  await page.keyboard.press("Enter");
  await says("found", "shown");
  const names = await page.locator("#holders th").allTextContents();
  assert.ok(names.includes(subject), names.join());
  assert.equal(await page.locator("#holders b").count(), 0, "a subject is text");
  await accessible("the status");
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wider, 0, "nothing is wider than the window");

  await press(/^Explain .*owner/);
  await says("explanation-outcome", "would get a token");
  await accessible("an explanation");
  await page.keyboard.press("Escape");

  await press(/^Revoke .*owner/);
  await page.getByLabel(/everywhere$/).waitFor();
  await accessible("a revocation");
  await page.getByLabel("Reason, for the audit log").fill("a test");
  await page.keyboard.press("Enter");
  await says("done", "Revoked: owner, everywhere.");
  await says("revocation-list", "a test");
  await says("revocation-list", "removal from channels: 1 done");
  await accessible("after a revocation");
  await press(/^Undo/);
  await says("done", "tokens are issued again");

  await press(/^Load the file again/);
  await says("reloaded", "Nothing had changed.");

  const kept = await page.evaluate(() => sessionStorage.length + localStorage.length + document.cookie.length);
  assert.equal(kept, 0, "the token is in memory alone");
  assert.deepEqual(problems, []);
  if (view === views.at(-1)) {
    process.kill(Number(pid), "SIGKILL");
    await page.locator("body.stale").waitFor();
    assert.equal(await page.locator("main").evaluate((main) => getComputedStyle(main).filter), "grayscale(1)");
    await says("as-of", "as of ");
  }
  await context.close();
}
