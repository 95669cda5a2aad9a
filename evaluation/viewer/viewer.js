/*
 * A body in motion on a canvas, and the words a model reads in it, over time and body parts.
 *
 * LexMotion.Viewer     an animated skeleton: play, scrub, speed, orbit, zoom; highlighted body parts
 * LexMotion.Explained  a viewer with its word bars and timeline
 *
 * The data come from views.py; nothing is loaded from elsewhere.
 */
const LexMotion = (() => {
  "use strict";

  const SPEEDS = [0.25, 0.5, 1, 2];
  const HOME = { yaw: 0.55, pitch: 0.2, zoom: 1 };
  const NEAR = 0.25; // metres in front of the camera
  const GRID = { step: 0.5, reach: 3.5 };
  const PAUSE = 0.6; // seconds at the end before the next loop
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const mix = (a, b, share) => a.map((value, place) => value + (b[place] - value) * share);
  const rgb = (color, alpha = 1) => `rgba(${color.map(Math.round).join(",")},${alpha})`;

  /** `#0072b2` or `rgb(0, 114, 178)` as three numbers. */
  function parseColor(text) {
    const hex = text.trim().match(/^#([0-9a-f]{6})$/i);
    if (hex) return [0, 2, 4].map((place) => parseInt(hex[1].slice(place, place + 2), 16));
    return (text.match(/[\d.]+/g) || [128, 128, 128]).slice(0, 3).map(Number);
  }

  /** An element: el("button.play", {title: "Play"}, "text", child). */
  function el(name, attributes = {}, ...children) {
    const [tag, ...classes] = name.split(".");
    const node = document.createElement(tag);
    node.className = classes.join(" ");
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  function icon(path) {
    const holder = document.createElement("template");
    holder.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${path}"/></svg>`;
    return holder.content.firstChild;
  }
  const ICONS = {
    play: "M4 2.5v11l9.5-5.5z",
    pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
    home: "M8 2a6 6 0 1 0 6 6h-1.6A4.4 4.4 0 1 1 8 3.6c1.2 0 2.3.5 3.1 1.3L9 7h5V2l-1.8 1.8A6 6 0 0 0 8 2z",
  };

  /** Positions of `packed_motion` as Float32Array (frames * joints * 3). */
  function unpackMotion(packed) {
    const raw = bytes(packed.data);
    const numbers = new DataView(raw.buffer);
    const positions = new Float32Array(raw.length / 2);
    for (let place = 0; place < positions.length; place++) {
      positions[place] = numbers.getInt16(2 * place, true) * packed.scale;
    }
    return { frames: packed.frames, joints: packed.joints, fps: packed.fps, positions };
  }

  class Viewer {
    /**
     * @param {HTMLElement} root element to replace the content of.
     * @param {object} skeleton see `skeleton_view`.
     * @param {object} options `controls`: buttons and slider; `grid`: floor, path and mouse.
     */
    constructor(root, skeleton, { controls = true, grid = true, label = "Animated skeleton" } = {}) {
      Object.assign(this, { root, skeleton, grid, motion: null, heat: null, playing: false, time: 0, speed: 1 });
      this.view = { ...HOME };
      this.listeners = [];
      this.canvas = el("canvas", grid ? { tabindex: 0, role: "img", "aria-label": label } : { "aria-hidden": true });
      root.replaceChildren(this.canvas);
      root.classList.add("lm-viewer");
      this.pen = this.canvas.getContext("2d");
      if (controls) this.addControls();
      if (grid) this.addMouse();
      new ResizeObserver(() => { this.readColors(); this.resize(); }).observe(this.canvas); // once it is attached
      new IntersectionObserver((entries) => {
        this.visible = entries[entries.length - 1].isIntersecting;
        this.draw();
      }).observe(this.canvas);
    }

    addControls() {
      this.button = el("button.lm-play", { type: "button", title: "Play (space)", "aria-label": "Play", onclick: () => this.toggle() });
      this.button.append(icon(ICONS.play));
      this.slider = el("input.lm-scrub", {
        type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "Frame",
        oninput: () => { this.pause(); this.seek(Number(this.slider.value) / this.motion.fps); },
      });
      this.clock = el("span.lm-clock", {}, "0.0 s");
      this.speeds = el("select.lm-speed", { "aria-label": "Speed", title: "Speed", onchange: () => { this.speed = Number(this.speeds.value); } });
      for (const speed of SPEEDS) this.speeds.append(el("option", { value: speed, selected: speed === 1 }, `${speed}×`));
      const home = el("button.lm-home", { type: "button", title: "Reset the view", "aria-label": "Reset view", onclick: () => this.resetView() });
      home.append(icon(ICONS.home));
      this.root.append(el("div.lm-controls", {}, this.button, this.slider, this.clock, this.speeds, home));
    }

    addMouse() {
      const fingers = new Map();
      let spread = 0;
      this.canvas.addEventListener("pointerdown", (event) => {
        fingers.set(event.pointerId, event);
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const before = fingers.get(event.pointerId);
        if (!before) return;
        fingers.set(event.pointerId, event);
        if (fingers.size === 1) {
          this.view.yaw -= (event.clientX - before.clientX) * 0.009;
          this.view.pitch = clamp(this.view.pitch + (event.clientY - before.clientY) * 0.006, -0.05, 1.45);
        } else {
          const [first, second] = [...fingers.values()];
          const now = Math.hypot(first.clientX - second.clientX, first.clientY - second.clientY);
          if (spread) this.view.zoom = clamp((this.view.zoom * now) / spread, 0.4, 4);
          spread = now;
        }
        this.draw();
      });
      const lift = (event) => { fingers.delete(event.pointerId); spread = 0; };
      for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, lift);
      this.canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey && document.activeElement !== this.canvas) return; // the page scrolls
        event.preventDefault();
        this.view.zoom = clamp(this.view.zoom * Math.exp(-event.deltaY * 0.0012), 0.4, 4);
        this.draw();
      }, { passive: false });
      this.canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === " ") this.toggle();
        else if (step && this.motion) { this.pause(); this.seek(this.time + step / this.motion.fps); }
        else if (event.key === "+" || event.key === "-") { this.view.zoom = clamp(this.view.zoom * (event.key === "+" ? 1.15 : 1 / 1.15), 0.4, 4); this.draw(); }
        else return;
        event.preventDefault();
      });
    }

    readColors() {
      const style = getComputedStyle(this.root);
      const read = (name) => parseColor(style.getPropertyValue(`--lm-${name}`));
      this.colors = Object.fromEntries(["left", "right", "middle", "dim", "heat", "grid", "stage"].map((name) => [name, read(name)]));
    }

    resize() {
      const ratio = Math.min(devicePixelRatio || 1, 2);
      const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
      if (width !== this.canvas.width || height !== this.canvas.height) {
        this.canvas.width = width;
        this.canvas.height = height;
      }
      this.draw(true);
    }

    /** @param {object|null} packed see `packed_motion`. */
    show(packed, { play = false, time = 0 } = {}) {
      this.pause();
      this.heat = null;
      this.motion = packed && unpackMotion(packed);
      this.root.classList.toggle("lm-empty", !this.motion);
      if (this.motion) {
        this.duration = (this.motion.frames - 1) / this.motion.fps;
        this.smoothRoots();
        if (this.slider) this.slider.max = this.motion.frames - 1;
        this.seek(time);
        if (play && !reducedMotion.matches) this.play();
      }
      this.draw();
    }

    /** The camera follows the root, smoothed over a second, so that steps do not shake the picture. */
    smoothRoots() {
      const { frames, joints, fps, positions } = this.motion;
      const reach = Math.round(fps / 2), stride = 3 * joints;
      this.roots = new Float32Array(2 * frames);
      for (const [place, axis] of [[0, 0], [1, 2]]) {
        const sums = new Float64Array(frames + 1);
        for (let frame = 0; frame < frames; frame++) sums[frame + 1] = sums[frame] + positions[frame * stride + axis];
        for (let frame = 0; frame < frames; frame++) {
          const low = Math.max(frame - reach, 0), high = Math.min(frame + reach + 1, frames);
          this.roots[2 * frame + place] = (sums[high] - sums[low]) / (high - low);
        }
      }
      let low = 0.4;
      for (let place = 1; place < Math.min(frames, 40) * stride; place += 3) low = Math.max(low, positions[place]);
      this.height = clamp(low, 0.8, 2.4);
    }

    onTime(listener) { this.listeners.push(listener); }
    toggle() { this.playing ? this.pause() : this.play(); }

    play() {
      if (!this.motion || this.playing) return;
      if (this.time >= this.duration) this.time = 0;
      this.playing = true;
      this.setButton();
      let last = null, waited = 0;
      const step = (now) => {
        if (!this.playing || !this.root.isConnected) return;
        const passed = last === null ? 0 : Math.min((now - last) / 1000, 0.1);
        last = now;
        if (this.time >= this.duration && (waited += passed) > PAUSE) { this.time = waited = 0; }
        else this.time = Math.min(this.time + passed * this.speed, this.duration);
        if (this.visible !== false) this.changed();
        requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    }

    pause() {
      this.playing = false;
      this.setButton();
    }

    setButton() {
      if (!this.button) return;
      this.button.replaceChildren(icon(this.playing ? ICONS.pause : ICONS.play));
      this.button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
      this.button.title = `${this.playing ? "Pause" : "Play"} (space)`;
    }

    seek(seconds) {
      this.time = clamp(seconds, 0, this.duration);
      this.changed();
    }

    changed() {
      if (this.slider) {
        this.slider.value = Math.round(this.time * this.motion.fps);
        this.slider.style.setProperty("--done", `${(100 * this.time) / (this.duration || 1)}%`);
        this.clock.textContent = `${this.time.toFixed(1)} / ${this.duration.toFixed(1)} s`;
      }
      for (const listener of this.listeners) listener(this.time);
      this.draw(true);
    }

    resetView() {
      this.view = { ...HOME };
      this.draw();
    }

    /** Highlight parts: `at(time)` returns a share from 0 to 1 per part; null restores the colours of the sides. */
    setHeat(heat) {
      this.heat = heat;
      this.draw();
    }

    draw(now = false) {
      if (now) return this.paint();
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.paint(); });
    }

    /** The body between two frames, Float32Array (joints * 3). */
    pose() {
      const { frames, joints, fps, positions } = this.motion;
      const place = clamp(this.time * fps, 0, frames - 1), frame = Math.min(Math.floor(place), frames - 1);
      const next = Math.min(frame + 1, frames - 1), share = place - frame, stride = 3 * joints;
      const body = new Float32Array(stride);
      for (let at = 0; at < stride; at++) {
        const here = positions[frame * stride + at];
        body[at] = here + (positions[next * stride + at] - here) * share;
      }
      const root = [0, 1].map((axis) => this.roots[2 * frame + axis] * (1 - share) + this.roots[2 * next + axis] * share);
      return { body, root, frame };
    }

    paint() {
      const { pen, canvas } = this;
      pen.clearRect(0, 0, canvas.width, canvas.height);
      if (!this.motion || !this.colors || !canvas.width || this.visible === false) return;
      const { body, root, frame } = this.pose();
      const { yaw, pitch, zoom } = this.view;
      const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
      const middle = this.height * 0.5, distance = this.height * 2.75;
      const scale = (Math.min(canvas.height, canvas.width * 1.1) * 0.78 * (distance / this.height) * zoom) / (this.grid ? 1.1 : 1);
      // World to screen: rotated about the vertical, tilted, in perspective from `distance`.
      const project = (x, y, z) => {
        x -= root[0]; y -= middle; z -= root[1];
        const right = x * cy - z * sy, back = x * sy + z * cy;
        const up = y * cp - back * sp, near = y * sp + back * cp;
        const depth = distance - near;
        return [canvas.width / 2 + (right * scale) / depth, canvas.height * 0.52 - (up * scale) / depth, depth];
      };
      if (this.grid) {
        this.paintFloor(project, root);
        this.paintPath(project, frame);
      }
      this.paintShadow(project, body, scale, distance);
      this.paintBody(project, body, scale, distance);
    }

    paintFloor(project, root) {
      const { pen, colors } = this, { step, reach } = GRID;
      const ratio = this.canvas.width / this.canvas.clientWidth;
      const [x0, z0] = root.map((value) => Math.floor((value - reach) / step) * step);
      pen.lineWidth = ratio;
      for (let row = 0; row <= (2 * reach) / step; row++) {
        for (let cell = 0; cell < (2 * reach) / step; cell++) {
          for (const across of [false, true]) {
            const [a, b, c, d] = across
              ? [x0 + row * step, z0 + cell * step, x0 + row * step, z0 + (cell + 1) * step]
              : [x0 + cell * step, z0 + row * step, x0 + (cell + 1) * step, z0 + row * step];
            const far = Math.hypot((a + c) / 2 - root[0], (b + d) / 2 - root[1]) / reach;
            if (far >= 1) continue;
            const from = project(a, 0, b), to = project(c, 0, d);
            if (from[2] < NEAR || to[2] < NEAR) continue;
            pen.strokeStyle = rgb(colors.grid, 0.75 * (1 - far) ** 1.2);
            pen.beginPath();
            pen.moveTo(from[0], from[1]);
            pen.lineTo(to[0], to[1]);
            pen.stroke();
          }
        }
      }
    }

    paintPath(project, frame) {
      const { pen, colors, motion, canvas } = this, ratio = canvas.width / canvas.clientWidth;
      let before = null;
      for (let at = 0; at < motion.frames; at += 2) {
        const place = project(this.roots[2 * at], 0.002, this.roots[2 * at + 1]);
        if (before && before[2] > NEAR && place[2] > NEAR) {
          pen.strokeStyle = rgb(colors.dim, at <= frame ? 0.95 : 0.35);
          pen.lineWidth = (at <= frame ? 2.2 : 1.4) * ratio;
          pen.beginPath();
          pen.moveTo(before[0], before[1]);
          pen.lineTo(place[0], place[1]);
          pen.stroke();
        }
        before = place;
      }
    }

    paintShadow(project, body, scale, distance) {
      const { pen, skeleton } = this;
      pen.lineCap = pen.lineJoin = "round";
      pen.strokeStyle = "rgba(0,0,0,0.13)";
      pen.lineWidth = (0.12 * scale) / distance;
      pen.beginPath(); // one stroke, so that crossing shadows are no darker
      for (const [parent, joint] of skeleton.bones) {
        const from = project(body[3 * parent], 0, body[3 * parent + 2]), to = project(body[3 * joint], 0, body[3 * joint + 2]);
        if (from[2] < NEAR || to[2] < NEAR) continue;
        pen.moveTo(from[0], from[1]);
        pen.lineTo(to[0], to[1]);
      }
      pen.stroke();
    }

    /** Colour of a bone: that of its side, or how strongly the selected word is read in its part now. */
    boneColor(bone, lights) {
      const { colors, skeleton } = this;
      if (!lights) return [colors[skeleton.sides[bone]], 0];
      const part = skeleton.partOfBone[bone], light = part < 0 ? 0 : lights[part];
      return [mix(colors.dim, colors.heat, light), light];
    }

    paintBody(project, body, scale, distance) {
      const { pen, skeleton, colors } = this;
      const lights = this.heat && this.heat.at(this.time);
      const point = (joint, lift = 0) => project(body[3 * joint], body[3 * joint + 1] + lift, body[3 * joint + 2]);
      const strokes = skeleton.bones.map(([parent, joint], bone) => {
        const from = point(parent), to = point(joint);
        const [color, light] = this.boneColor(bone, lights);
        const thickness = skeleton.sides[bone] === "middle" ? 0.085 : 0.068;
        return { from, to, color, light, depth: (from[2] + to[2]) / 2, width: thickness };
      });
      const head = point(skeleton.head, 0.06);
      const [headColor, headLight] = this.boneColor(skeleton.bones.findIndex(([, joint]) => joint === skeleton.head), lights);
      strokes.push({ ball: true, from: head, to: head, color: headColor, light: headLight, depth: head[2], width: 0.095 });
      strokes.sort((a, b) => b.depth - a.depth);
      const corners = skeleton.trunk.map((joint) => point(joint));
      if (corners.every((corner) => corner[2] > NEAR)) {
        pen.fillStyle = rgb(lights ? colors.dim : colors.middle, 0.14);
        pen.beginPath();
        corners.forEach((corner, place) => (place ? pen.lineTo(corner[0], corner[1]) : pen.moveTo(corner[0], corner[1])));
        pen.fill();
      }
      for (const stroke of strokes) {
        if (stroke.from[2] < NEAR || stroke.to[2] < NEAR) continue;
        const width = (stroke.width * scale) / stroke.depth;
        // Far limbs fade a little; an edge in the background colour separates crossing limbs.
        const faded = mix(stroke.color, colors.stage, clamp(((stroke.depth - distance) / this.height) * 0.35 + 0.06, 0, 0.3));
        const line = (color, extra, cap) => {
          pen.lineCap = cap;
          pen.strokeStyle = pen.fillStyle = color;
          pen.lineWidth = width + extra;
          pen.beginPath();
          if (stroke.ball) {
            pen.arc(stroke.from[0], stroke.from[1], width + extra / 2, 0, 2 * Math.PI);
            pen.fill();
          } else {
            pen.moveTo(stroke.from[0], stroke.from[1]);
            pen.lineTo(stroke.to[0], stroke.to[1]);
            pen.stroke();
          }
        };
        line(rgb(colors.stage), Math.max(width * 0.3, 1.5), "butt");
        if (stroke.light > 0.08) {
          pen.shadowColor = rgb(colors.heat, stroke.light);
          pen.shadowBlur = width * 1.6 * stroke.light;
        }
        line(rgb(faded), 0, "round");
        pen.shadowBlur = 0;
      }
    }
  }

  /** Where words were read: light(word, window, part), 0 to 1. */
  class Maps {
    constructor(maps, count) {
      Object.assign(this, maps);
      this.values = bytes(maps.data);
      this.floors = [];
      // Every word has some score everywhere; show what exceeds its median.
      for (let word = 0; word < count; word++) {
        const own = [...this.values.subarray(word * this.windows * this.parts, (word + 1) * this.windows * this.parts)];
        own.sort((a, b) => a - b);
        this.floors.push(Math.min(own[own.length >> 1] || 0, 215));
      }
    }

    light(word, window, part) {
      const value = this.values[(word * this.windows + window) * this.parts + part];
      return clamp((value - this.floors[word]) / (255 - this.floors[word]), 0, 1);
    }

    window(time) { return clamp(Math.floor(time / this.windowSeconds), 0, this.windows - 1); }

    row(word, part) {
      const parts = part === undefined ? [...Array(this.parts).keys()] : [part];
      return [...Array(this.windows).keys()].map((window) => Math.max(...parts.map((at) => this.light(word, window, at))));
    }
  }

  const TIMELINE_WORDS = 8;

  /** Viewer, words and timeline of one motion; a click on a word highlights where it was read. */
  class Explained {
    /**
     * @param {object} places `viewer`, `words` and `timeline`: elements to fill; the last two are optional.
     * @param {object} options `skeleton`; `labels` {motion, query}; `actions` [{sign, title, run(word)}] beside words;
     *   `onSelect(word)`, null when the selection is cleared.
     */
    constructor(places, { skeleton, labels = {}, actions = [], onSelect = null }) {
      Object.assign(this, { places, skeleton, actions, onSelect, word: null, view: null });
      this.labels = { motion: "this motion", query: "query", ...labels };
      this.viewer = new Viewer(places.viewer, skeleton);
      this.viewer.onTime((time) => this.moveHead(time));
    }

    show(view, options = {}) {
      this.view = view;
      this.word = null;
      this.maps = view && view.words.length ? new Maps(view.maps, view.words.length) : null;
      this.viewer.show(view && view.motion, options);
      this.renderWords();
      this.renderTimeline();
    }

    select(word) {
      this.word = this.word === word ? null : word;
      const number = this.word === null ? -1 : this.view.words.findIndex((item) => item.word === this.word);
      if (number < 0) {
        this.word = null;
        this.viewer.setHeat(null);
      } else {
        const { maps } = this;
        const ofWindow = (window) => [...Array(maps.parts).keys()].map((part) => maps.light(number, window, part));
        this.viewer.setHeat({ at: (time) => ofWindow(maps.window(time)) });
        const item = this.view.words[number];
        this.viewer.seek(this.viewer.playing ? item.start : (item.start + item.end) / 2);
      }
      this.renderWords();
      this.renderTimeline();
      this.onSelect?.(this.word);
    }

    renderWords() {
      const place = this.places.words;
      if (!place) return;
      place.classList.add("lm-words");
      if (!this.view) return place.replaceChildren();
      const { words, onlyQuery } = this.view;
      const shared = words.filter((item) => item.contribution > 0).sort((a, b) => b.contribution - a.contribution);
      const rest = words.filter((item) => !(item.contribution > 0));
      const top = (items, name) => Math.max(...items.map((item) => item[name]), 1e-9);
      const asked = onlyQuery.map(([word, query]) => ({ word, query, weight: 0 }));
      this.tops = { weight: top(words, "weight"), query: top([...words, ...asked], "query") };
      const hasQuery = shared.length > 0 || asked.length > 0;
      place.classList.toggle("lm-alone", !hasQuery);
      const section = (title, items) => items.length ? [el("h3", {}, title), ...items.map((item) => this.wordRow(item, hasQuery))] : [];
      place.replaceChildren(
        ...(hasQuery ? [el("div.lm-legend", {}, el("span", {}, this.labels.query), el("span"), el("span", {}, this.labels.motion))] : []),
        ...section("Shared words", shared),
        ...section(hasQuery ? "Only in this motion" : "Words of this motion", rest.slice(0, hasQuery ? 12 : 24)),
        ...section("Only in the query", asked.slice(0, 8)),
        ...(hasQuery && !shared.length ? [el("p.lm-note", {}, "Query and motion share no word.")] : []),
      );
    }

    wordRow(item, hasQuery) {
      const known = "part" in item, shared = item.contribution > 0;
      const bar = (name) => el(`span.lm-bar.lm-${name}`, {}, item[name] > 0 ? el("i", { style: `width:${(100 * item[name]) / this.tops[name]}%` }) : null);
      const title = known
        ? `${item.part}, ${item.start.toFixed(1)}–${item.end.toFixed(1)} s · weight ${item.weight.toFixed(2)}` + (shared ? ` · adds ${item.contribution.toFixed(3)} to the score` : "")
        : "This motion does not have the word.";
      const label = el("button.lm-word", { type: "button", title, disabled: !known, "aria-pressed": String(this.word === item.word), "data-word": item.word, onclick: () => this.select(item.word) }, item.word);
      const actions = el("span.lm-actions", {}, ...this.actions.map((action) =>
        el("button", { type: "button", title: `${action.title}: ${item.word}`, "aria-label": `${action.title}: ${item.word}`, onclick: () => action.run(item.word) }, action.sign)));
      const row = el("div.lm-row", {}, ...(hasQuery ? [bar("query")] : []), label, bar("weight"), this.actions.length ? actions : null);
      row.classList.toggle("lm-shared", shared);
      row.classList.toggle("lm-chosen", this.word === item.word);
      return row;
    }

    renderTimeline() {
      const place = this.places.timeline;
      if (!place) return;
      place.classList.add("lm-timeline");
      place.replaceChildren();
      this.head = null;
      if (!this.maps) return;
      const { words } = this.view, { maps } = this;
      const ranked = words.map((_, number) => number).sort((a, b) => words[b].contribution - words[a].contribution || a - b);
      const chosen = words.findIndex((item) => item.word === this.word);
      const rows = ranked.slice(0, TIMELINE_WORDS);
      if (chosen >= 0 && !rows.includes(chosen)) rows[rows.length - 1] = chosen;
      const grid = el("div.lm-rows");
      for (const number of rows) {
        const name = words[number].word;
        grid.append(this.timeRow(name, maps.row(number), number === chosen ? "lm-chosen" : "", () => this.select(name)));
        if (number !== chosen) continue;
        for (let part = 0; part < maps.parts; part++) {
          grid.append(this.timeRow(this.skeleton.parts[part], maps.row(number, part), "lm-part"));
        }
      }
      // Windows end where the model's input ends; the line follows the motion.
      this.head = el("div.lm-head");
      this.ticks = this.secondTicks();
      place.append(grid, this.ticks, this.head);
      place.onpointerdown = (event) => this.seekTo(event);
      place.onpointermove = (event) => { if (event.buttons) this.seekTo(event); };
      this.moveHead(this.viewer.time);
    }

    get span() { return Math.max(this.viewer.duration, 1e-3); }

    timeRow(name, lights, kind, run) {
      // Hard stops: a window is one value. Anything after the motion's end is cut off.
      const { windowSeconds } = this.maps, stops = [];
      lights.forEach((light, window) => {
        const [from, to] = [window, window + 1].map((edge) => `${Math.min((100 * edge * windowSeconds) / this.span, 100).toFixed(2)}%`);
        stops.push(`color-mix(in srgb, var(--lm-heat) ${Math.round(100 * light)}%, var(--lm-cell)) ${from} ${to}`);
      });
      const label = run
        ? el("button.lm-word", { type: "button", "aria-pressed": String(kind === "lm-chosen"), onclick: run, title: "Show where this word was read" }, name)
        : el("span.lm-word", {}, name);
      return el(`div.lm-time${kind ? `.${kind}` : ""}`, { "data-row": name }, label, el("i", { style: `background:linear-gradient(to right,${stops.join(",")})` }));
    }

    secondTicks() {
      const step = [0.5, 1, 2, 5, 10, 20, 60].find((size) => this.span / size <= 8) || 60;
      const ticks = el("div.lm-ticks");
      for (let at = 0; at <= this.span; at += step) ticks.append(el("span", { style: `left:${(100 * at) / this.span}%` }, `${at} s`));
      return ticks;
    }

    seekTo(event) {
      if (event.target.closest(".lm-word")) return;
      const box = this.ticks.getBoundingClientRect();
      this.viewer.seek(((event.clientX - box.left) / box.width) * this.span);
    }

    moveHead(time) {
      if (this.head) this.head.style.setProperty("--at", time / this.span);
    }
  }

  /** Colours follow the page's theme: redraw viewers when it changes. */
  const viewers = new Set();
  const readAgain = () => viewers.forEach((viewer) => {
    if (!viewer.root.isConnected) return viewers.delete(viewer);
    viewer.readColors();
    viewer.draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readAgain);
  const make = (root, skeleton, options) => {
    const viewer = new Viewer(root, skeleton, options);
    viewers.add(viewer);
    return viewer;
  };

  /** A small picture that moves while the pointer is over `hover`. */
  function thumbnail(root, skeleton, packed, hover = root) {
    const viewer = make(root, skeleton, { controls: false, grid: false });
    viewer.show(packed, { time: (packed.frames - 1) / packed.fps / 2 });
    hover.addEventListener("pointerenter", () => viewer.play());
    hover.addEventListener("pointerleave", () => viewer.pause());
    return viewer;
  }

  function explained(places, options) {
    const made = new Explained(places, options);
    viewers.add(made.viewer);
    return made;
  }

  return { el, viewer: make, thumbnail, explained, themeChanged: readAgain };
})();
