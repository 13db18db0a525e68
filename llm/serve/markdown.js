"use strict";
// Markdown as elements. Whatever an answer holds stays text: nodes are made one by one
// and filled as text, links lead to http, https and mailto alone, nothing is loaded.
//
//   show_markdown(target, source, put)   again and again while the source grows
//
// `put(parent, {text, at}, from, to)` adds some characters; `at` has the place of each in
// the source.

const MOST_NESTED = 12;
const FENCE = /^( *)(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:([ \t]+)|$)/;
const COLUMNS = /^ {0,3}\|?(?:[ \t]*:?-+:?[ \t]*\|)+(?:[ \t]*:?-+:?[ \t]*)?$/;

// Blocks that did not change since the last call keep their elements.
function show_markdown(target, source, put) {
  let at = 0;
  const lines = source.split("\n").map(text => {
    const line = { text, at };
    at += text.length + 1;
    return line;
  });
  const before = target.blocks ?? [];
  target.blocks = blocks(lines, put, 0).map((block, n) =>
    before[n]?.key === block.key ? before[n] : { key: block.key, node: block.make() });
  target.blocks.forEach(({ node }, n) => {
    if (target.childNodes[n] !== node) target.insertBefore(node, target.childNodes[n] ?? null);
  });
  while (target.childNodes.length > target.blocks.length) target.lastChild.remove();
}

// --- blocks ---------------------------------------------------------------------

// [{key, make}]: the text of a block, and a function that makes its element.
function blocks(lines, put, depth) {
  const all = [];
  for (let first = 0; first < lines.length;) {
    const { text } = lines[first];
    if (!text.trim()) { first += 1; continue; }
    const kind = depth < MOST_NESTED ? kind_of(lines, first) : paragraph;
    const { end, make } = kind(lines, first, put, depth);
    const key = kind.name + lines.slice(first, end).map(line => line.text).join("\n");
    all.push({ key, make });
    first = end;
  }
  return all;
}

function kind_of(lines, n) {
  const { text } = lines[n];
  if (FENCE.test(text)) return code;
  if (HEADING.test(text)) return heading;
  if (RULE.test(text)) return rule;
  if (QUOTE.test(text)) return quote;
  if (ITEM.test(text)) return list;
  if (text.includes("|") && COLUMNS.test(lines[n + 1]?.text ?? "")) return table;
  return paragraph;
}

function element(name, parent, kind = "") {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  parent?.append(node);
  return node;
}
function cut(line, size) { return { text: line.text.slice(size), at: line.at + size }; }
function indent(text) { return text.length - text.trimStart().length; }

// Lines as one text, with the place of each of its characters.
function joined(lines) {
  const at = [];
  for (const line of lines) {
    for (let n = 0; n <= line.text.length; n++) at.push(line.at + n);
  }
  return { text: lines.map(line => line.text).join("\n"), at };
}

function paragraph(lines, first, put) {
  let end = first + 1;
  while (end < lines.length && lines[end].text.trim()) {
    const kind = kind_of(lines, end);
    // A number in the middle of a sentence begins no list.
    const number = kind === list && /^ *\d/.test(lines[end].text) && !/^ *1[.)]/.test(lines[end].text);
    if (kind !== paragraph && !number) break;
    end += 1;
  }
  const make = () => {
    const node = element("p");
    inline(node, joined(lines.slice(first, end).map(line => cut(line, indent(line.text)))), put);
    return node;
  };
  return { end, make };
}

function heading(lines, first, put) {
  const [start, marks] = HEADING.exec(lines[first].text);
  const make = () => {
    const node = element("h" + marks.length);
    const line = cut(lines[first], start.length);
    line.text = line.text.replace(/[ \t]+#+[ \t]*$/, "").trimEnd();
    inline(node, joined([line]), put);
    return node;
  };
  return { end: first + 1, make };
}

function rule(lines, first) { return { end: first + 1, make: () => element("hr") }; }

// A fence without an end goes on to the end: it may still be coming.
function code(lines, first, put) {
  const [, space, fence, about] = FENCE.exec(lines[first].text);
  let last = first + 1;
  const closes = text => {
    const bare = text.trim();
    return bare.length >= fence.length && indent(text) < 4 + space.length &&
      [...bare].every(char => char === fence[0]);
  };
  while (last < lines.length && !closes(lines[last].text)) last += 1;
  const make = () => {
    const node = element("div", null, "code"), bar = element("div", node, "bar");
    element("span", bar).textContent = about.trim().split(/\s+/)[0];
    const pre = element("pre", node), inner = element("code", pre);
    pre.tabIndex = 0;
    const within = lines.slice(first + 1, last)
      .map(line => cut(line, Math.min(indent(line.text), space.length)));
    const whole = joined(within);
    if (whole.text) put(inner, whole, 0, whole.text.length);
    copy_button(bar, "Copy code", () => inner.textContent);
    return node;
  };
  return { end: Math.min(last + 1, lines.length), make };
}

function quote(lines, first, put, depth) {
  let end = first;
  while (end < lines.length && QUOTE.test(lines[end].text)) end += 1;
  const make = () => {
    const node = element("blockquote");
    const within = lines.slice(first, end).map(line => cut(line, QUOTE.exec(line.text)[0].length));
    for (const block of blocks(within, put, depth + 1)) node.append(block.make());
    return node;
  };
  return { end, make };
}

// An item goes on with what is indented more than its mark, and with plain lines.
function list(lines, first, put, depth) {
  const [, outer, mark] = ITEM.exec(lines[first].text);
  const kind_of_mark = text => text.at(-1) === "." || text.at(-1) === ")" ? text.at(-1) : text;
  const items = [];
  let n = first;
  while (n < lines.length) {
    const match = ITEM.exec(lines[n].text);
    if (!match || match[1].length > outer.length + 1 || RULE.test(lines[n].text) ||
        kind_of_mark(match[2]) !== kind_of_mark(mark)) break;
    const space = match[3]?.length > 4 ? 1 : match[3]?.length ?? 1;
    const width = match[1].length + match[2].length + space;
    const within = [cut(lines[n], Math.min(width, lines[n].text.length))];
    for (n += 1; n < lines.length; n++) {
      const { text } = lines[n], deep = indent(text);
      const blank = !text.trim(), after_blank = !lines[n - 1].text.trim();
      if (!blank && deep <= match[1].length + 1 &&
          (after_blank || kind_of(lines, n) !== paragraph)) break;
      within.push(cut(lines[n], Math.min(deep, width)));
    }
    items.push(within);
  }
  const make = () => {
    const node = element(/\d/.test(mark) ? "ol" : "ul");
    if (/\d/.test(mark) && parseInt(mark) !== 1) node.start = parseInt(mark);
    for (const within of items) {
      const item = element("li", node);
      for (const block of blocks(within, put, depth + 1)) item.append(block.make());
    }
    return node;
  };
  return { end: n, make };
}

function cells(line) {
  const all = [];
  let from = indent(line.text), end = line.text.trimEnd().length;
  if (line.text[from] === "|") from += 1;
  if (line.text[end - 1] === "|" && line.text[end - 2] !== "\\") end -= 1;
  for (let n = from; n <= end; n++) {
    if (n < end && (line.text[n] !== "|" || line.text[n - 1] === "\\")) continue;
    const part = { text: line.text.slice(from, n), at: line.at + from };
    all.push({ ...cut(part, indent(part.text)), text: part.text.trim() });
    from = n + 1;
  }
  return all;
}
function table(lines, first, put) {
  let end = first + 2;
  while (end < lines.length && lines[end].text.includes("|")) end += 1;
  const make = () => {
    const node = element("div", null, "table"), inner = element("table", node);
    const sides = cells(lines[first + 1]).map(({ text }) =>
      text.endsWith(":") ? (text.startsWith(":") ? "center" : "right") : "");
    const row = (line, name, parent) => {
      const tr = element("tr", parent), own = cells(line);
      sides.forEach((side, n) => {
        const cell = element(name, tr, side);
        if (own[n]) inline(cell, joined([own[n]]), put);
      });
    };
    row(lines[first], "th", element("thead", inner));
    const body = element("tbody", inner);
    for (const line of lines.slice(first + 2, end)) row(line, "td", body);
    return node;
  };
  return { end, make };
}

// --- within a line --------------------------------------------------------------

const MARKS = { "***": ["strong", "em"], "**": ["strong"], "*": ["em"],
  "___": ["strong", "em"], "__": ["strong"], "_": ["em"], "~~": ["del"] };
const BARE = /^https?:\/\/[^\s<>"'`]+/i;
const ANGLE = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/i;
const WORD = /[\p{L}\p{N}_]/u;

function inline(parent, chars, put, from = 0, to = chars.text.length, depth = 0) {
  const { text } = chars, missing = new Set();
  let plain = from;
  const flush = end => { if (end > plain) put(parent, chars, plain, end); };
  for (let n = from; n < to;) {
    const span = text[n] === "\\" && n + 1 < to && /[!-/:-@[-`{-~]/.test(text[n + 1])
      ? { end: n + 2, plain: n + 1 }
      : "`*_~[!<hH".includes(text[n]) ? span_at(chars, n, to, depth, missing) : null;
    if (!span) { n += 1; continue; }
    if (span.make || span.plain) flush(n);
    if (span.make) parent.append(span.make(put));
    if (span.make || span.plain) plain = span.plain ?? span.end;
    n = span.end;
  }
  flush(to);
}

// {end, make} of what begins here; {end} of characters that stay as they are; or null.
function span_at(chars, n, to, depth, missing) {
  const { text } = chars, rest = text.slice(n, Math.min(to, n + 2000));
  if (text[n] === "`") return code_span(chars, n, to, missing);
  if (depth >= MOST_NESTED) return null;
  if (chars.linked && "<[!hH".includes(text[n])) return null;  // no link within a link
  if (text[n] === "<") {
    const match = ANGLE.exec(rest);
    return match && link(chars, n + 1, n + 1 + match[1].length, match[1], n + match[0].length, depth);
  }
  if (text[n] === "h" || text[n] === "H") {
    if (n && WORD.test(text[n - 1])) return null;
    const match = BARE.exec(rest);
    if (!match) return null;
    let url = match[0].replace(/[.,;:!?*_~]+$/, "");
    if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
    return link(chars, n, n + url.length, url, n + url.length, depth);
  }
  if (text[n] === "[" || rest.startsWith("![")) return named_link(chars, n, rest, depth);
  return marked(chars, n, to, depth, missing);
}

function code_span(chars, n, to, missing) {
  const { text } = chars, mark = /^`+/.exec(text.slice(n, to))[0];
  const literal = { end: n + mark.length };
  if (missing.has(mark)) return literal;
  for (const match of text.slice(n + mark.length, to).matchAll(/`+/g)) {
    if (match[0].length !== mark.length) continue;
    let from = n + mark.length, end = from + match.index;
    const after = end + mark.length, inner = text.slice(from, end);
    if (/^ .* $/s.test(inner) && inner.trim()) { from += 1; end -= 1; }
    return { end: after, make: put => {
      const node = element("code");
      put(node, chars, from, end);
      return node;
    } };
  }
  missing.add(mark);
  return literal;
}

function marked(chars, n, to, depth, missing) {
  const { text } = chars, char = text[n];
  let size = 1;
  while (text[n + size] === char && n + size < to) size += 1;
  const mark = char.repeat(size), literal = { end: n + size };
  const inside = n + size;
  if (!MARKS[mark] || missing.has(mark) || inside >= to || /\s/.test(text[inside])) return literal;
  if (char === "_" && n && WORD.test(text[n - 1])) return literal;
  for (let end = text.indexOf(mark, inside + 1); end >= 0 && end + size <= to;
    end = text.indexOf(mark, end + 1)) {
    const whole = text[end - 1] !== char && text[end + size] !== char;
    const word = char === "_" && WORD.test(text[end + size] ?? "");
    if (!whole || word || /\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    return { end: end + size, make: put => {
      const node = element(MARKS[mark][0]);
      const within = MARKS[mark][1] ? element(MARKS[mark][1], node) : node;
      inline(within, chars, put, inside, end, depth + 1);
      return node;
    } };
  }
  missing.add(mark);
  return literal;
}

// [text](address), and ![text](address): a picture is a link, it is not loaded.
function named_link(chars, n, rest, depth) {
  if (!rest.includes("](")) return null;
  const start = rest[0] === "!" ? 2 : 1;
  let end = start, open = 1;
  for (; end < rest.length; end++) {
    if (rest[end] === "\\") { end += 1; continue; }
    if (rest[end] === "[") open += 1;
    if (rest[end] === "]" && !--open) break;
  }
  const match = /^\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/
    .exec(rest.slice(end + 1));
  if (open || !match) return null;
  const address = match[1];
  return link(chars, n + start, n + end, address, n + end + 1 + match[0].length, depth);
}

// A link, or null where the address leads elsewhere than to the web or a mailbox.
function link(chars, from, to, address, end, depth) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return { end, make: put => {
    const node = element("a");
    node.href = url.href;
    node.rel = "noopener noreferrer nofollow";
    node.target = "_blank";
    node.title = url.href;
    if (from < to) inline(node, { ...chars, linked: true }, put, from, to, depth + 1);
    else node.textContent = url.href;
    return node;
  } };
}

// --- copying --------------------------------------------------------------------

function copy_button(parent, name, text_of) {
  const node = element("button", parent, "copy");
  node.type = "button";
  node.textContent = "Copy";
  node.setAttribute("aria-label", name);
  node.onclick = async () => {
    node.textContent = await copied(text_of()) ? "Copied" : "Not copied";
    setTimeout(() => { node.textContent = "Copy"; }, 1500);
  };
  return node;
}
async function copied(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* no HTTPS */ }
  const focused = document.activeElement, box = element("textarea", document.body, "unseen");
  box.value = text;
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  focused?.focus();
  return done;
}
