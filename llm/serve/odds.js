"use strict";
// How likely tokens were: a box beside the one that the pointer is at, or the keys.
//
// An answer is one stop of Tab; Enter goes in, arrows go from token to token, Escape out.

// Adds characters as spans of the tokens that they came in; see markdown.js.
function put_tokens(tokens) {
  const token_at = place => {
    let low = 0, high = tokens.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tokens[middle].to <= place) low = middle + 1; else high = middle;
    }
    return tokens[low];
  };
  return (parent, { text, at }, from, to) => {
    for (let n = from; n < to;) {
      const token = token_at(at[n]);
      let end = n + 1;
      while (end < to && at[end] < (token?.to ?? 0)) end += 1;
      const span = document.createElement("i");
      span.className = "token" + (token?.likely?.p < Math.log(0.2) ? " seldom" : "");
      span.textContent = text.slice(n, end);
      span.likely = token?.likely;
      parent.append(span);
      n = end;
    }
  };
}

function likeliest(logprobs) {  // of both APIs, as one list
  if (!logprobs) return [];
  if (logprobs.content) return logprobs.content.map(t => ({ token: t.token, p: t.logprob,
    top: t.top_logprobs.map(o => [o.token, o.logprob]) }));
  return logprobs.tokens.map((token, i) => ({ token, p: logprobs.token_logprobs[i],
    top: Object.entries(logprobs.top_logprobs[i] ?? {}).sort((a, b) => b[1] - a[1]) }));
}

// A piece of an answer, as the tokens that join to it; else as one.
function add_tokens(tokens, from, text, logprobs) {
  const parts = likeliest(logprobs);
  if (parts.map(t => t.token).join("") === text) {
    for (const likely of parts) {
      tokens.push({ to: from + likely.token.length, likely });
      from += likely.token.length;
    }
  } else if (text) {
    tokens.push({ to: from + text.length, likely: parts.length === 1 ? parts[0] : null });
  }
  return parts.length;
}

let shown = null, by_keys = false;

function show_odds(span) {
  const box = $("likely"), one = span?.likely;
  box.hidden = !one;
  shown?.classList.remove("shown");
  shown = one ? span : null;
  if (!one) return;
  shown.classList.add("shown");
  const table = document.createElement("table");
  const rows = one.top.some(([t]) => t === one.token) ? one.top : [...one.top, [one.token, one.p]];
  for (const [token, p] of rows) {
    const row = table.insertRow();
    row.className = token === one.token ? "own" : "";
    row.insertCell().textContent = visible(token);
    row.insertCell().textContent = (Math.exp(p) * 100).toFixed(1) + " %";
  }
  box.replaceChildren(table);
  const at = span.getBoundingClientRect();
  const left = Math.min(at.left, innerWidth - box.offsetWidth - 8);
  const below = at.bottom + 6 + box.offsetHeight < innerHeight;
  box.style.left = Math.max(left, 8) + "px";
  box.style.top = (below ? at.bottom + 6 : at.top - 6 - box.offsetHeight) + "px";
}

function visible(token) {
  const escaped = char => JSON.stringify(char).slice(1, -1);
  return token.replace(/[\u0000-\u001f]/g, escaped).replaceAll(" ", "␣");
}

// Makes the tokens of an answer that is complete reachable by keys.
function reachable(said) {
  if (!said.querySelector("i.token") || !said.tokens.some(token => token.likely)) return;
  said.tabIndex = 0;
  said.setAttribute("role", "group");
  said.setAttribute("aria-label", "Answer; Enter goes through the odds of its tokens");
  said.onkeydown = event => {
    if (event.target !== said) return;
    const inside = shown && said.contains(shown);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" && inside) leave_odds();
    else if (event.key === "Enter" && !inside) step_to(said, 0);
    else if (step && inside) step_to(said, step);
    else return;
    event.preventDefault();
  };
  said.onblur = () => { if (by_keys) leave_odds(); };
}
function leave_odds() {
  by_keys = false;
  show_odds(null);
}
function step_to(said, step) {
  const spans = [...said.querySelectorAll("i.token")].filter(span => span.likely);
  const now = spans.indexOf(shown);
  let next = now < 0 ? 0 : now + step;
  // A token that was cut in two is one step.
  while (now >= 0 && spans[next]?.likely === shown.likely && step) next += step;
  if (!spans[next]) return;
  spans[next].scrollIntoView({ block: "nearest" });
  by_keys = true;
  show_odds(spans[next]);
}

document.addEventListener("pointerover", event => { if (!by_keys) show_odds(event.target); });
