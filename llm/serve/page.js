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

// The storage may be switched off, full, or hold what another page left there.
function remembered(name, fits) {
  try {
    const kept = JSON.parse(localStorage.getItem("llm." + name));
    return kept !== null && fits(kept) ? kept : null;
  } catch { return null; }
}
function remember(name, value) {
  try { localStorage.setItem("llm." + name, JSON.stringify(value)); } catch { /* full */ }
}
const is_text = value => typeof value === "string";
const is_message = one => ["user", "assistant"].includes(one?.role) && is_text(one.content);
const are_messages = value => Array.isArray(value) && value.every(is_message);

for (const id of KEPT) {
  const input = $(id), name = input.type === "checkbox" ? "checked" : "value";
  const usual = input[name], kept = remembered(id, value => typeof value === typeof usual);
  if (kept !== null) input[name] = kept;
  if (input.type === "number" && !input.value) input.value = usual;
  const shown = document.querySelector(`output[for=${id}]`);
  const show = () => {
    if (shown) shown.value = input.value;
    remember(id, input[name]);
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
      draw_soon(targets[at]);
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
    for (const target of targets) {
      const said = target.querySelector(".said");
      clearTimeout(said.timer);
      draw(said);
      reachable(said);
    }
    busy(false);
  }
  return texts;
}

// --- showing --------------------------------------------------------------------

// More of an answer; it is drawn soon.
function write(target, text, logprobs) {
  const said = target.querySelector(".said");
  const count = add_tokens(said.tokens, said.source.length, text, logprobs);
  said.source += text;
  return count;
}
function draw_soon(target) {
  const said = target.querySelector(".said");
  said.timer ??= setTimeout(() => { said.timer = null; draw(said); scroll(); }, 60);
}
function draw(said) {
  const { source, tokens } = said;
  const put = tokens.length ? put_tokens(tokens)
    : (parent, { text }, from, to) => parent.append(text.slice(from, to));
  if (!said.plain) return show_markdown(said, source, put);
  said.replaceChildren();
  put(said, { text: source, at: [...Array(source.length).keys()] }, 0, source.length);
}
function empty_said(parent, plain) {
  const said = document.createElement("div");
  said.className = "said";
  Object.assign(said, { source: "", tokens: [], plain });
  parent.append(said);
  return said;
}

function turn(role, text, parent = $("conversation")) {
  const made = document.createElement("div");
  made.className = "turn " + role;
  const said = empty_said(made, role === "user");
  said.source = text;
  draw(said);
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
function scroll(always = false) {
  const main = document.querySelector("main");
  if (always || main.scrollHeight - main.scrollTop - main.clientHeight < 160) main.scrollTop = 1e9;
}
function busy(on) {
  $("send").hidden = on;
  $("stop-button").hidden = !on;
  $("clear").disabled = on;
  $("conversation").setAttribute("aria-busy", on);
  for (const x of document.querySelectorAll(".thumbs button")) x.disabled = on;
}

// --- chat and text --------------------------------------------------------------

async function chat(text) {
  messages.push({ role: "user", content: text });
  const own = turn("user", text);
  if (await reply()) return;
  messages.pop();
  own.remove();
  $("empty").hidden = messages.length > 0;
  $("say").value = text;
  keep();
}

// One or two answers to the conversation so far; whether there is any.
async function reply() {
  const system = $("system").value.trim();
  const given = [...(system ? [{ role: "system", content: system }] : []), ...messages];
  const told = $("probabilities").checked ? { logprobs: true, top_logprobs: 5 } : {};
  const two = about.feedback === "true" && $("two").checked;
  const parent = document.createElement("div");
  parent.className = two ? "pair" : "";
  $("conversation").append(parent);
  const targets = (two ? [0, 1] : [0]).map(() => turn("assistant", "", parent));
  scroll(true);
  const texts = await answer("/v1/chat/completions",
    { ...wanted(), ...told, messages: given }, targets);
  if (!texts) { parent.remove(); return false; }
  if (two) choose(given, texts, targets, parent);
  else {
    messages.push({ role: "assistant", content: texts[0] });
    tools(targets[0], given, texts[0]);
    keep();
  }
  scroll();
  return true;
}

// What may be done with an answer; another one is only made in place of the last.
function tools(target, context, text) {
  const row = button_row(target);
  copy_button(row, "Copy the answer", () => text);
  for (const x of document.querySelectorAll(".again")) x.remove();
  const again = add_button(row, "Again", async () => {
    if (messages.at(-1)?.content !== text) return;
    const before = messages.pop();
    target.hidden = true;
    if (await reply()) return target.remove();
    messages.push(before);
    target.hidden = false;
  });
  again.className = "again";
  again.title = "Another answer in place of this one";
  if (about.feedback === "true" && context) thumbs(row, context, text);
}

function choose(given, texts, targets, parent) {
  // Until one is chosen the first is what the conversation goes on with.
  messages.push({ role: "assistant", content: texts[0] });
  const place = messages.length - 1;
  keep();
  targets.forEach((target, at) => {
    const row = button_row(target);
    copy_button(row, "Copy the answer", () => texts[at]);
    add_button(row, "This one is better", async () => {
      const body = { messages: given, chosen: texts[at], rejected: texts[1 - at] };
      for await (const _ of events("/feedback/preference", body)) say("written");
      messages[place].content = texts[at];
      keep();
      targets[1 - at].remove();
      parent.className = "";
      row.remove();
      if (messages.length === place + 1) tools(target, null, texts[at]);
    });
  });
}
function thumbs(row, given, text) {
  const both = [];
  for (const [label, title, good] of [["Good", "A good answer", true], ["Bad", "A bad one", false]]) {
    const made = add_button(row, label, async () => {
      const body = { messages: given, answer: text, good };
      for await (const told of events("/feedback/rating", body))
        say(told.preference ? "written, with the other answer to it" : "written");
      for (const x of both) x.setAttribute("aria-pressed", x === made);
    });
    made.title = title;
    both.push(made);
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
  made.append(given);
  empty_said(made, true);
  made.hidden = false;
  $("text").hidden = true;
  const told = $("probabilities").checked ? { logprobs: 5 } : {};
  const texts = await answer("/v1/completions", { ...wanted(), ...told, prompt: text }, [made]);
  if (texts) {
    $("text").value = text + texts[0];
    const row = button_row(made);
    copy_button(row, "Copy the text", () => $("text").value);
    add_button(row, "Edit", async () => edit());
  } else edit();
  keep();
}
function edit() { $("made").hidden = true; $("text").hidden = false; $("text").focus(); }
$("made").addEventListener("click", event => {
  if (!$("send").hidden && !event.target.closest("button") && !String(getSelection())) edit();
});

// --- the rest -------------------------------------------------------------------

function keep() { remember("messages", messages); remember("text", $("text").value); }
function show_mode(next) {
  mode = next === "text" ? "text" : "chat";
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
  $("say").style.height = "";
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

messages = remembered("messages", are_messages) ?? [];
for (const [n, one] of messages.entries()) {
  const block = turn(one.role, one.content);
  if (one.role === "user") continue;
  if (n === messages.length - 1) tools(block, null, one.content);
  else copy_button(button_row(block), "Copy the answer", () => one.content);
}
scroll(true);
$("text").value = remembered("text", is_text) ?? "";
if (about.chats !== "true") $("tab-chat").disabled = true;
show_mode(about.chats === "true" ? remembered("mode", is_text) : "text");
if (about.generates !== "true") { $("send").disabled = true; say("This model only reads: /v1/embeddings.", true); }
