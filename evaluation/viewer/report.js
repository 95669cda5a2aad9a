/* Hits whose motions are available get a moving body, their words and a timeline instead of plain bars. */
for (const article of document.querySelectorAll("article[data-hit]")) {
  const view = LEXMOTION_DATA.views[Number(article.dataset.hit)];
  if (!view) continue;
  const [viewer, words, timeline] = ["viewer", "words", "timeline"].map((name) => LexMotion.el(`div.${name}`));
  article.querySelector(".bars").replaceWith(LexMotion.el("div.motion", {}, viewer, words, timeline));
  LexMotion.explained({ viewer, words, timeline }, { skeleton: LEXMOTION_DATA.skeleton }).show(view);
}
