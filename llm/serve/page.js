"use strict";
// Streams answers of this server's own API. The conversation and the settings are kept
// in this browser alone.
const $ = id => document.getElementById(id);
const about = document.documentElement.dataset;
const NUMBERS = ["temperature", "top_p", "min_p", "repetition_penalty", "top_k",
  "max_tokens", "seed"];
const KEPT = [...NUMBERS, "stop", "system", "probabilities", "two"];
let messages = [];
let mode = about.chats === "true" ? "chat" : "text";
let abort = null;

// --- settings -------------------------------------------------------------------

function remembered(name) {
  try { return JSON.parse(localStorage.getItem("llm." + name)); } catch { return null; }
}
function remember(name, value) {
  try { localStorage.setItem("llm." + name, JSON.stringify(value)); } catch { /* full */ }
}
for (const id of KEPT) {
  const input = $(id), held = remembered(id);
  if (held !== null) input.type === "checkbox" ? input.checked = held : input.value = held;
  const shown = document.querySelector(`output[for=${id}]`);
  const show = () => {
    if (shown) shown.value = input.value;
    remember(id, input.type === "checkbox" ? input.checked : input.value);
  };
  input.addEventListener("input", show);
  show();
}
for (const x of document.querySelectorAll(".feedback")) x.hidden = about.feedback !== "true";

function wanted() {
  const asked = { model: about.model, stream: true };
  for (const id of NUMBERS) if ($(id).value !== "") asked[id] = Number($(id).value);
  if ($("stop").value) asked.stop = [$("stop").value];
  return asked;
}

// --- asking ---------------------------------------------------------------------

async function* events(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if ($("key").value) headers.authorization = "Bearer " + $("key").value;
  const reply = await fetch(path, { method: "POST", headers, signal,
    body: JSON.stringify(body) });
  if (reply.status === 401) { document.querySelector(".key").hidden = false; toggle(true); }
  if (!reply.ok) {
    const told = await reply.json().catch(() => null);
    throw new Error(told?.error?.message ?? `the server said ${reply.status}`);
  }
  if (!body.stream) return yield await reply.json();
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split("\n\n");
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// One or two answers, into elements; returns their texts.
async function answer(path, body, targets) {
  abort = new AbortController();
  busy(true);
  const texts = targets.map(() => ""), start = performance.now();
  let tokens = 0;
  try {
    for await (const event of events(path, { ...body, n: targets.length }, abort.signal)) {
      const choice = event.choices[0];
      if (!choice) continue;
      const at = choice.index, text = choice.delta?.content ?? choice.text ?? "";
      texts[at] += text;
      tokens += write(targets[at], text, choice.logprobs);
      if (choice.finish_reason && choice.finish_reason !== "stop") {
        note(targets[at], { length: "cut at the most tokens",
          content_filter: "ended by the guard" }[choice.finish_reason]);
      }
      scroll();
    }
    const seconds = (performance.now() - start) / 1000;
    const rate = tokens ? `, ${(tokens / seconds).toFixed(1)} a second` : "";
    say(tokens ? `${tokens} tokens in ${seconds.toFixed(1)} s${rate}` : "");
  } catch (error) {
    if (error.name === "AbortError") { targets.forEach(x => note(x, "stopped")); say("stopped"); }
    else { say(error.message, true); if (!texts.some(Boolean)) return null; }
  } finally {
    busy(false);
  }
  return texts;
}

// --- showing --------------------------------------------------------------------

function likeliest(logprobs) {  // of both APIs, as one list
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content.map(t => ({ token: t.token, bytes: t.bytes,
    p: t.logprob, top: t.top_logprobs.map(o => [o.token, o.logprob]) }));
  return logprobs.tokens.map((token, i) => ({ token, p: logprobs.token_logprobs[i],
    top: Object.entries(logprobs.top_logprobs[i] ?? {}).sort((a, b) => b[1] - a[1]) }));
}

// Text as spans of tokens, where these join to the text; else as it is.
function write(target, text, logprobs) {
  const found = likeliest(logprobs);
  const spot = target.querySelector(".said") ?? target;
  if (found.map(t => t.token).join("") === text) {
    for (const one of found) {
      const span = document.createElement("i");
      span.className = "token" + (one.p < Math.log(0.2) ? " seldom" : "");
      span.textContent = one.token;
      span.likely = one;
      spot.append(span);
    }
  } else {
    const span = document.createElement("i");
    span.className = "token";
    span.textContent = text;
    if (found.length === 1) span.likely = found[0];
    spot.append(span);
  }
  return found.length;
}

document.addEventListener("pointerover", event => {
  const one = event.target.likely, box = $("likely");
  box.hidden = !one;
  if (!one) return;
  box.replaceChildren(document.createElement("table"));
  const rows = one.top.some(([t]) => t === one.token) ? one.top : [...one.top, [one.token, one.p]];
  for (const [token, p] of rows) {
    const row = box.firstChild.insertRow();
    row.className = token === one.token ? "own" : "";
    row.insertCell().textContent = JSON.stringify(token).slice(1, -1).replaceAll(" ", "␣");
    row.insertCell().textContent = (Math.exp(p) * 100).toFixed(1) + " %";
  }
  const at = event.target.getBoundingClientRect();
  const left = Math.min(at.left, innerWidth - box.offsetWidth - 8);
  const below = at.bottom + 6 + box.offsetHeight < innerHeight;
  box.style.left = Math.max(left, 8) + "px";
  box.style.top = (below ? at.bottom + 6 : at.top - 6 - box.offsetHeight) + "px";
});

function turn(role, text, parent = $("conversation")) {
  const made = document.createElement("div");
  made.className = "turn " + role;
  const said = document.createElement("span");
  said.className = "said";
  said.textContent = text;
  made.append(said);
  parent.append(made);
  $("empty").hidden = true;
  return made;
}
function note(target, text) {
  const made = document.createElement("span");
  made.className = "reason";
  made.textContent = text;
  target.append(made);
}
function say(text, bad = false) {
  $("status").textContent = text;
  $("status").className = bad ? "bad" : "";
}
function scroll() {
  const main = document.querySelector("main");
  if (main.scrollHeight - main.scrollTop - main.clientHeight < 160) main.scrollTop = 1e9;
}
function busy(on) {
  $("send").hidden = on;
  $("stop-button").hidden = !on;
  $("clear").disabled = on;
}

// --- chat and text --------------------------------------------------------------

async function chat(text) {
  messages.push({ role: "user", content: text });
  turn("user", text);
  const system = $("system").value.trim();
  const given = [...(system ? [{ role: "system", content: system }] : []), ...messages];
  const told = $("probabilities").checked ? { logprobs: true, top_logprobs: 5 } : {};
  const two = about.feedback === "true" && $("two").checked;
  const parent = document.createElement("div");
  parent.className = two ? "pair" : "";
  $("conversation").append(parent);
  const targets = (two ? [0, 1] : [0]).map(() => turn("assistant", "", parent));
  scroll();
  const texts = await answer("/v1/chat/completions",
    { ...wanted(), ...told, messages: given }, targets);
  if (!texts) { messages.pop(); parent.remove(); $("say").value = text; return keep(); }
  if (two) return choose(given, texts, targets, parent);
  messages.push({ role: "assistant", content: texts[0] });
  if (about.feedback === "true") thumbs(given, texts[0], targets[0]);
  keep();
}

function choose(given, texts, targets, parent) {
  // Until one is chosen the first is what the conversation goes on with.
  messages.push({ role: "assistant", content: texts[0] });
  const place = messages.length - 1;
  keep();
  targets.forEach((target, at) => {
    const row = button_row(target);
    add_button(row, "This one is better", async () => {
      const body = { messages: given, chosen: texts[at], rejected: texts[1 - at] };
      for await (const _ of events("/feedback/preference", body)) say("written");
      messages[place].content = texts[at];
      keep();
      targets[1 - at].remove();
      parent.className = "";
      row.remove();
    });
  });
}
function thumbs(given, text, target) {
  const row = button_row(target);
  for (const [label, title, good] of [["Good", "A good answer", true], ["Bad", "A bad one", false]]) {
    const made = add_button(row, label, async () => {
      const body = { messages: given, answer: text, good };
      for await (const told of events("/feedback/rating", body))
        say(told.preference ? "written, with the other answer to it" : "written");
      for (const x of row.children) x.setAttribute("aria-pressed", x === made);
    });
    made.title = title;
  }
}
function button_row(target) {
  const row = document.createElement("div");
  row.className = "thumbs";
  target.append(row);
  return row;
}
function add_button(row, text, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.onclick = () => act().catch(error => say(error.message, true));
  row.append(made);
  return made;
}

async function go_on() {
  const text = $("text").value, made = $("made");
  made.replaceChildren();
  const given = document.createElement("span");
  given.className = "given";
  given.textContent = text;
  const said = document.createElement("span");
  said.className = "said";
  made.append(given, said);
  made.hidden = false;
  $("text").hidden = true;
  const told = $("probabilities").checked ? { logprobs: 5 } : {};
  const texts = await answer("/v1/completions", { ...wanted(), ...told, prompt: text }, [made]);
  if (texts) $("text").value = text + texts[0];
  else edit();
  keep();
}
function edit() { $("made").hidden = true; $("text").hidden = false; $("text").focus(); }
$("made").addEventListener("click", () => { if ($("send").hidden === false) edit(); });

// --- the rest -------------------------------------------------------------------

function keep() { remember("messages", messages); remember("text", $("text").value); }
function show_mode(next) {
  mode = next;
  remember("mode", mode);
  $("tab-chat").setAttribute("aria-selected", mode === "chat");
  $("tab-text").setAttribute("aria-selected", mode === "text");
  const chats = mode === "chat";
  $("conversation").hidden = $("say").hidden = !chats;
  $("empty").hidden = !chats || messages.length > 0;
  $("made").hidden = true;
  $("text").hidden = chats;
  $("send").textContent = chats ? "Send" : "Go on";
}
function toggle(open) {
  $("settings").hidden = !open;
  $("settings-button").setAttribute("aria-expanded", open);
}
$("tab-chat").onclick = () => show_mode("chat");
$("tab-text").onclick = () => show_mode("text");
$("settings-button").onclick = () => toggle($("settings").hidden);
$("stop-button").onclick = () => abort?.abort();
$("clear").onclick = () => {
  messages = [];
  $("conversation").replaceChildren();
  $("text").value = "";
  say("");
  keep();
  show_mode(mode);
};
$("settings").onsubmit = event => event.preventDefault();
$("ask").onsubmit = event => {
  event.preventDefault();
  if ($("send").hidden) return;
  const text = $("say").value.trim();
  if (mode === "text") return void go_on();
  if (!text) return;
  $("say").value = "";
  chat(text);
};
$("say").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
$("say").addEventListener("input", () => {
  $("say").style.height = "auto";
  $("say").style.height = Math.min($("say").scrollHeight + 2, innerHeight * .3) + "px";
});

messages = remembered("messages") ?? [];
for (const one of messages) turn(one.role, one.content);
$("text").value = remembered("text") ?? "";
if (about.chats !== "true") $("tab-chat").disabled = true;
show_mode(about.chats === "true" ? remembered("mode") ?? "chat" : "text");
if (about.generates !== "true") { $("send").disabled = true; say("This model only reads: /v1/embeddings.", true); }
