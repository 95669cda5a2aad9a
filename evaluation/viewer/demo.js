/* The page of the demo: a question, its hits, and the selected hit. Answers come from `api/...`. */
(() => {
  "use strict";

  const { el } = LexMotion;
  const info = LEXMOTION_DATA;
  const $ = (id) => document.getElementById(id);
  const KINDS = { must: "must", must_not: "must not", boost: "boost" };
  const question = { text: "", example: null, must: [], must_not: [], boost: {} };
  let latest = 0; // replies to older questions are dropped
  let shownHit = null;

  const explained = LexMotion.explained(
    { viewer: $("viewer"), words: $("words"), timeline: $("timeline") },
    {
      skeleton: info.skeleton,
      actions: [
        { sign: "+", title: "Must have", run: (word) => addWord(word, "must") },
        { sign: "−", title: "Must not have", run: (word) => addWord(word, "must_not") },
        { sign: "×2", title: "Boost", run: (word) => addWord(word, "boost") },
      ],
      onSelect(word) {
        document.querySelector(".stage").classList.toggle("reading", word !== null);
        const box = $("viewer").getBoundingClientRect(); // on a phone the words are far below the body
        if (word !== null && box.bottom < 120) document.querySelector(".stage").scrollIntoView({ behavior: "smooth" });
      },
    },
  );

  /** Ask the server; show an `error` in the answer, unless a newer question was asked (`late`). */
  async function ask(path, content, { late = () => false, ...options } = {}) {
    let reply;
    try {
      reply = await fetch(`api/${path}`, { method: "POST", body: JSON.stringify(content), ...options });
      const answer = await reply.json();
      if (answer.error && !answer.near && !late()) say(answer.error);
      return answer;
    } catch {
      const error = reply ? `The server returned an error (${reply.status}).` : "The server cannot be reached.";
      if (!late()) say(error);
      return { error };
    }
  }

  function say(text, { remark = false, near = [], pick = null } = {}) {
    $("message").hidden = !text;
    $("message").classList.toggle("remark", remark);
    $("message").replaceChildren(text || "");
    if (near.length) {
      $("message").append(" Did you mean ", ...near.flatMap((word, place) => [place ? " or " : "", el("button", { type: "button", onclick: () => pick(word) }, word)]), "?");
    }
  }

  // ------------------------------------------------------------------------------------------------- the question

  async function addWord(text, kind) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return $("word").focus();
    const answer = await ask("word", { word: wanted });
    if (answer.error) {
      if (answer.near) say(answer.error.split(";")[0] + ".", { near: answer.near, pick: (word) => addWord(word, kind) });
      return;
    }
    removeWord(answer.word, false);
    if (kind === "boost") question.boost[answer.word] = 2;
    else question[kind].push(answer.word);
    $("word").value = "";
    search();
  }

  function removeWord(word, again = true) {
    for (const kind of ["must", "must_not"]) question[kind] = question[kind].filter((other) => other !== word);
    delete question.boost[word];
    if (again) search();
  }

  function renderChips() {
    const chip = (kind, word, ...more) => el(`span.chip.${kind}`, { "data-word": word, title: KINDS[kind] },
      el("span", {}, { must: "+ ", must_not: "− ", boost: "" }[kind] + word), ...more,
      el("button", { type: "button", "aria-label": `Remove ${KINDS[kind]} ${word}`, onclick: () => removeWord(word) }, "✕"));
    const factor = (word) => el("input", {
      type: "number", min: 0, max: 100, step: 0.5, value: question.boost[word], "aria-label": `Factor of ${word}`,
      onchange: (event) => { question.boost[word] = Math.min(Math.max(Number(event.target.value) || 0, 0), 100); search(); },
    });
    $("chips").replaceChildren(
      ...question.must.map((word) => chip("must", word)),
      ...question.must_not.map((word) => chip("must_not", word)),
      ...Object.keys(question.boost).map((word) => chip("boost", word, "×", factor(word))),
    );
    const example = question.example;
    $("example").hidden = !example;
    if (example) {
      $("example").replaceChildren(el("span", {}, `like ${example.name}`),
        el("button", { type: "button", "aria-label": "Remove the example", onclick: () => { question.example = null; search(); } }, "✕"));
    }
    $("text").placeholder = example ? "searching by example; type to search by words" : "Describe the motion";
  }

  const asked = () => ({ ...question, example: question.example && { kind: question.example.kind, id: question.example.id } });
  const isEmpty = () => !question.text && !question.example && !question.must.length && !Object.keys(question.boost).length;

  async function search({ play = false } = {}) {
    say("");
    renderChips();
    const number = ++latest;
    if (isEmpty()) {
      $("status").textContent = "";
      return $("hits").replaceChildren();
    }
    const answer = await ask("search", asked(), { late: () => number !== latest });
    if (number !== latest || answer.error) return;
    const { hits } = answer;
    $("status").textContent = hits.length
      ? `Best ${hits.length} of ${info.items.toLocaleString("en")} motions in ${Math.max(answer.milliseconds, 1).toFixed(0)} ms`
      : "No motion that meets these conditions shares a word with this question.";
    $("hits").replaceChildren(...hits.map((hit, place) => hitRow(hit, place)));
    if (answer.notes.length) say(answer.notes.join(". "), { remark: true });
    // Show the upload itself first.
    if (question.example?.kind === "upload") show({ kind: "upload", id: question.example.id, title: question.example.name }, play);
    else if (hits.length) show(hits[0], play);
  }

  // ----------------------------------------------------------------------------------------------------- the hits

  function hitRow(hit, place) {
    const top = hit.words.length ? hit.words[0][1] : 1;
    const tags = hit.words.slice(0, 6).map(([word, share]) => el("span.tag", { style: `--share:${Math.round(8 + (20 * share) / top)}%`, title: `adds ${share.toFixed(3)} to the score` }, word));
    const picture = el(hit.preview ? "span.picture" : "span.none", {}, hit.preview ? null : "no positions");
    const row = el("button.hit", { type: "button", "data-id": hit.id, onclick: () => show(hit, true) }, picture,
      el("span", {}, el("span.line", {}, el("span", {}, `${place + 1} · ${hit.id}`), el("b", { title: "Cosine of query and motion" }, hit.score.toFixed(3))),
        el("span.caption", {}, hit.title), el("span.tags", {}, ...tags)));
    if (hit.preview) LexMotion.thumbnail(picture, info.skeleton, hit.preview, row);
    return el("li", {}, row);
  }

  async function show(hit, play) {
    shownHit = hit;
    const kind = hit.kind || "item";
    for (const row of $("hits").querySelectorAll(".hit")) row.setAttribute("aria-current", String(kind === "item" && row.dataset.id === String(hit.id)));
    const view = await ask("view", { kind, id: hit.id, question: isEmpty() ? null : asked() }, { late: () => shownHit !== hit });
    if (shownHit !== hit) return;
    $("title").textContent = hit.title;
    const facts = [kind === "upload" ? "your motion" : `motion ${hit.id}`];
    if (!view.error) facts.push(`${((view.motion.frames - 1) / view.motion.fps).toFixed(1)} s`, `${view.motion.fps} frames per second`);
    if (view.score !== null && !view.error && kind === "item") facts.push(`score ${view.score.toFixed(3)}`);
    $("facts").textContent = facts.join(" · ");
    $("facts").title = (hit.captions || []).join("\n");
    $("alike").hidden = kind !== "item";
    document.querySelector(".stage").classList.remove("reading");
    explained.show(view.error ? null : view, { play });
  }

  // --------------------------------------------------------------------------------------------------- own motions

  async function upload(file) {
    if (!file) return;
    say("");
    $("status").textContent = `Reading ${file.name} …`;
    const answer = await ask(`upload?name=${encodeURIComponent(file.name)}`, null, { body: file });
    $("file").value = "";
    if (answer.error) { $("status").textContent = ""; return; }
    question.text = $("text").value = "";
    question.example = { kind: "upload", id: answer.key, name: answer.name };
    await search({ play: true });
    if (answer.notes.length) say(answer.notes.join(" "), { remark: true });
  }

  // ------------------------------------------------------------------------------------------------------- events

  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    question.text = $("text").value.trim();
    if (question.text) question.example = null;
    search();
  });
  $("adder").addEventListener("submit", (event) => {
    event.preventDefault();
    addWord($("word").value, event.submitter?.dataset.kind || "must");
  });
  $("file").addEventListener("change", () => upload($("file").files[0]));
  $("alike").addEventListener("click", () => {
    question.text = $("text").value = "";
    question.example = { kind: "item", id: shownHit.id, name: `motion ${shownHit.id}` };
    search();
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    upload(event.dataTransfer.files[0]);
  });
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    LexMotion.themeChanged();
  });

  $("brand").textContent = info.title;
  $("tagline").textContent = `Search ${info.items.toLocaleString("en")} motions by words, and see why`;
  $("file").accept = info.formats.join(",");
  $("uploader").title = `Search with your own motion: ${info.formats.join(", ")}`;
  $("vocabulary").append(...info.words.map((word) => el("option", { value: word })));
  if (info.examples.length) {
    $("examples").append("Try", ...info.examples.map((text) => el("button", { type: "button", onclick: () => { $("text").value = text; $("search").requestSubmit(); } }, text)));
    $("text").value = question.text = info.examples[0];
  }
  renderChips();
  search();
})();
