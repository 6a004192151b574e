// What an answer looks like: code, emphasis and links of Markdown, made of nodes. Whatever is said stays text: nothing
// here is ever parsed as HTML.

const FENCE = /^ {0,3}(`{3,}|~{3,})[^\n]*\n([\s\S]*?)(?:^ {0,3}\1[`~]*[ \t]*(?:\n|$)|$(?![\s\S]))/gm;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]])/g;

/** The nodes of a text. */
export function nodesOf(text) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(FENCE)) {
    if (found.index > at) nodes.push(paragraph(text.slice(at, found.index)));
    nodes.push(block(found[2]));
    at = found.index + found[0].length;
  }
  if (at < text.length) nodes.push(paragraph(text.slice(at)));
  return nodes;
}

function block(code) {
  const inner = element("code", code.replace(/\n$/, ""));
  const outer = document.createElement("pre");
  outer.tabIndex = 0;  // so that it can be scrolled by keyboard
  outer.append(inner);
  return outer;
}

function paragraph(text) {
  const node = document.createElement("div");
  node.className = "text";
  const trimmed = text.replace(/^\n+|\n+$/g, "");
  let at = 0;
  for (const found of trimmed.matchAll(INLINE)) {
    node.append(trimmed.slice(at, found.index));
    if (found[1] !== undefined) node.append(element("code", found[1]));
    else if (found[2] !== undefined) node.append(element("strong", found[2]));
    else node.append(link(found[3]));
    at = found.index + found[0].length;
  }
  node.append(trimmed.slice(at));
  return node;
}

function link(address) {
  const node = element("a", address);
  node.href = address;
  node.target = "_blank";
  node.rel = "noopener noreferrer";
  return node;
}

export function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}
