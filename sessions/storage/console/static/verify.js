// The verifier's page: takes files, shows each step. Its policy lets it ask any node, so it is a page of its own, which
// never sees a token.

import { el, message, put } from "./dom.js";
import { looksLikeProof } from "./receipt.js";
import { FAILED, NodeError, NOT_CHECKED, NOTE, PROVEN, verify } from "./verifier.js";

const HANDED_OVER = "lucid-receipt";
const RECEIPT_MAX = 4 * 1024 * 1024;
const LEAF_HASHES = "leaf-hashes.txt";
const ADDRESS = /^(?:0x)?([0-9a-fA-F]{40})$/;
const OUTCOMES = {
  [PROVEN]: ["✓", "Proven"], [NOTE]: ["i", "Note"], [NOT_CHECKED]: ["–", "Not checked"], [FAILED]: ["✕", "Failed"],
};
const VERDICTS = {
  failed: ["failed", "Failed: something contradicts the receipt."],
  proven: ["proven", "Proven: the chain has the anchor of this receipt."],
  "proven in part": ["note", "Proven in part: nothing contradicts the receipt, and not all of it was checked."],
};

const main = document.getElementById("main");
const given = { receipt: null, name: "", proofs: [], envelopes: [] };

function page() {
  const chosen = el("ul", { class: "chosen", "aria-live": "polite" });
  const steps = el("ol", { class: "steps" });
  const verdict = el("div", { "aria-live": "polite" });
  const said = el("div");
  const node = el("input", { id: "node", type: "url", placeholder: "https://node.example/key", autocomplete: "off", spellcheck: "false" });
  const publisher = el("input", { id: "publisher", type: "text", placeholder: "0x…", autocomplete: "off", spellcheck: "false", maxlength: "42" });
  const files = el("input", { id: "files", type: "file", multiple: true, "aria-describedby": "files-help", change: () => void take([...files.files]) });
  const folder = el("input", { id: "folder", type: "file", webkitdirectory: true, change: () => void take([...folder.files]) });
  const button = el("button", { type: "submit", class: "primary" }, "Verify");
  const zone = el("div", { class: "drop" },
    el("div", { class: "field" }, el("label", { for: "files" }, "Receipt, chunk proofs, envelopes"), files),
    el("div", { class: "field" }, el("label", { for: "folder" }, "Or a folder of envelopes"), folder),
    el("p", { class: "quiet", id: "files-help" }, "Or drop files here. Nothing is uploaded: this page reads them itself."));
  for (const kind of ["dragenter", "dragover"]) zone.addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    void take([...event.dataTransfer.files]);
  });

  async function take(list) {
    put(said);
    for (const file of list) {
      const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 4).arrayBuffer()));
      if (file.name === LEAF_HASHES) continue; // comes with envelopes, and proves nothing
      if (head === "LSE1") given.envelopes.push(file);
      else if (file.size > RECEIPT_MAX) put(said, message("fault", `${file.name} is neither a receipt nor an envelope.`));
      else {
        const bytes = new Uint8Array(await file.arrayBuffer());
        if (looksLikeProof(bytes)) given.proofs.push({ name: file.name, bytes });
        else Object.assign(given, { receipt: bytes, name: file.name });
      }
    }
    show();
  }

  function show() {
    put(chosen,
      given.receipt && el("li", {}, `Receipt: ${given.name}`),
      given.proofs.map(({ name }) => el("li", {}, `Chunk proof: ${name}`)),
      given.envelopes.length > 0 && el("li", {}, `Envelopes: ${given.envelopes.length}`));
    clear.hidden = !(given.receipt || given.proofs.length || given.envelopes.length);
  }

  const clear = el("button", { type: "button", class: "small", hidden: true, click: () => {
    Object.assign(given, { receipt: null, name: "", proofs: [], envelopes: [] });
    files.value = folder.value = "";
    put(steps);
    put(verdict);
    put(said);
    show();
  } }, "Begin anew");

  async function run() {
    put(steps);
    put(verdict);
    put(said);
    const expected = ADDRESS.exec(publisher.value.trim());
    if (given.receipt === null) return void put(said, message("fault", "Choose a receipt first."));
    if (publisher.value.trim() && !expected) return void put(said, message("fault", "The publisher is an address: 0x and 40 hex digits."));
    button.disabled = true;
    try {
      const question = { ...given, nodeUrl: node.value.trim(), publisher: expected ? expected[1].toLowerCase() : "" };
      const found = await verify(question, tell, (read, all) => put(said, message("note", `${read} of ${all} envelopes read …`)));
      put(said);
      const [kind, text] = VERDICTS[found];
      put(verdict, el("p", { class: `verdict ${kind}` }, text));
    } catch (error) {
      put(said, message("fault", error instanceof NodeError ? `${error.message} Nothing is said about the receipt by that.` : String(error)));
    } finally {
      button.disabled = false;
    }
  }

  function tell(outcome, text, values) {
    const [sign, word] = OUTCOMES[outcome];
    steps.append(el("li", { class: `step ${outcome}` },
      el("span", { class: `badge ${outcome}` }, el("span", { "aria-hidden": "true" }, sign), ` ${word}`),
      el("div", {}, el("p", {}, `${text[0].toUpperCase()}${text.slice(1)}.`),
        values.length > 0 && el("details", {}, el("summary", {}, "Hashes on the way"),
          el("dl", { class: "facts" }, values.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("code", { class: "hash" }, value)))))))));
  }

  put(main, el("div", { class: "title" }, el("h1", {}, "Verify here")),
    el("p", { class: "quiet" }, "This page hashes by itself what you give it, and asks the node that you name. It trusts that node to tell what is on its chain, and no service of Lucid. It came from one, though: whoever doubts that service verifies with lucid-sessions verify, or by hand as FORMAT.md says."),
    el("form", { class: "card", submit: (event) => { event.preventDefault(); void run(); } },
      zone, chosen,
      el("div", { class: "toolbar" },
        el("div", { class: "field grow" }, el("label", { for: "node" }, "RPC endpoint of a node of the chain"), node),
        el("div", { class: "field grow" }, el("label", { for: "publisher" }, "Publisher you expect (if you know)"), publisher)),
      el("div", { class: "actions" }, button, clear), said),
    verdict, steps);
  const handed = sessionStorage.getItem(HANDED_OVER);
  if (handed !== null) {
    sessionStorage.removeItem(HANDED_OVER);
    Object.assign(given, { receipt: new TextEncoder().encode(handed), name: "from the console" });
    show();
  }
}

if (globalThis.isSecureContext && globalThis.crypto?.subtle) {
  page();
} else {
  put(main, el("h1", {}, "Verify here"), message("fault", "This page cannot hash here: browsers offer WebCrypto only to pages over https, or from localhost. Open the console over https (TLS_CERT_FILE of session-storage), or use lucid-sessions verify."));
}
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
