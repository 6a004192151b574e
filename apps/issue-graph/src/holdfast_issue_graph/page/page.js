"use strict";
// Text only ever goes in as text; the drawing is an image, in which nothing can run.
const at = (id) => document.getElementById(id);

function say(error) {
  at("error").textContent = error;
  at("error").hidden = !error;
}

async function told(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `answered with ${response.status}`);
  return body;
}

async function follow(job) {
  for (;;) {
    const now = await told(await fetch(`/jobs/${job}`));
    at("bar").max = now.limit;
    at("bar").value = now.read;
    at("lines").textContent = now.lines.join("\n");
    if (now.state === "failed") throw new Error(now.error);
    if (now.state === "done") return show(job, now);
    await new Promise((go) => setTimeout(go, 300));
  }
}

function show(job, now) {
  at("progress").hidden = true;
  at("result").hidden = false;
  at("drawing").src = `/jobs/${job}/graph.svg`;
  at("drawing").alt = `Graph of ${now.start}: the report below says the same in words`;
  at("svg-link").href = `/jobs/${job}/graph.svg`;
  at("report-link").href = `/jobs/${job}/report.md`;
  at("json-link").href = `/jobs/${job}/graph.json`;
  at("report").textContent = now.report;
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  say("");
  at("result").hidden = true;
  at("progress").hidden = false;
  at("bar").removeAttribute("value");
  at("lines").textContent = "";
  try {
    const body = JSON.stringify({ url: at("url").value });
    const begun = await told(await fetch("/explore", { method: "POST", body, headers: { "content-type": "application/json" } }));
    await follow(begun.job);
  } catch (error) {
    at("progress").hidden = true;
    say(error.message);
  } finally {
    button.disabled = false;
  }
});
