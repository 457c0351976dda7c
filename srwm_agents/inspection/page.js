"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const LEFT = 84, RIGHT = 10, ABOVE = 9; // of all charts, in CSS pixels: labels stand on the left
  const INK = "#1f2933", GREY = "#4a5561", PALE = "#d5dbe1";
  const FONT = "12px system-ui, sans-serif";
  let track = null, step = 0, timer = null, hovered = null;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const number = (x) => {
    if (x === 0) return "0";
    const size = Math.abs(x);
    if (size >= 1000 && size < 1e6) return String(Math.round(x)).replace("-", "−");
    const text = size >= 1e6 || size < 0.001 ? x.toExponential(1) : x.toPrecision(3);
    return text.replace("-", "−").replace(/(\.\d*?)0+($|e)/, "$1$2").replace(/\.($|e)/, "$1");
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = ({ shape, data }) => ({ shape, values: new Float32Array(bytes(data).buffer) });

  // Matrices: deflated differences from step to step of bytes, undone once for each track.
  const inflate = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Int8Array(await new Response(stream).arrayBuffer());
  };
  const cells = data.layers.reduce((sum, l) => sum + l.heads * l.rows * columns(l), 0);
  function columns(layer) { return layer.blocks.reduce((sum, block) => sum + block.columns, 0); }
  const load = async (one) => {
    if (one.ready) return;
    one.ready = true;
    one.sizes = one.sizes.map(floats);
    one.rates = one.rates.map(floats);
    if (!cells) return;
    const entries = await inflate(one.matrices);
    for (let i = cells; i < entries.length; i++) entries[i] += entries[i - cells];
    one.entries = entries;
    one.matrices = "";
  };

  const colours = new Uint8Array(255 * 4);
  const stops = data.diverging.map((text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)));
  for (let i = 0; i < 255; i++) {
    const at = (i / 254) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    stops[low].forEach((c, j) => { colours[4 * i + j] = Math.round(c + (stops[low + 1][j] - c) * (at - low)); });
    colours[4 * i + 3] = 255;
  }

  // One canvas a head, a pixel an entry, with a white column between blocks.
  const maps = [];
  const makeMatrices = () => {
    const place = byId("matrices");
    if (!data.layers.length) {
      place.append(element("p", { textContent: "This core keeps no matrix that could be shown." }));
      return;
    }
    const bar = element("i");
    bar.style.background = `linear-gradient(to right, ${data.diverging.join(", ")})`;
    const what = data.layers[0].shift ? "shift of each weight from its slow (trained) weight" : "entries of the fast matrices";
    const limit = number(data.scale);
    place.append(element("div", { id: "scale" }, element("span", { textContent: `−${limit}` }), bar,
      element("span", { textContent: limit }), element("span", { textContent: what })));
    let offset = 0;
    data.layers.forEach((layer, l) => {
      const heads = element("div", { className: "heads" });
      const wide = columns(layer);
      for (let h = 0; h < layer.heads; h++) {
        const canvas = element("canvas", { width: wide + layer.blocks.length - 1, height: layer.rows });
        const names = element("div", { className: "names" }, ...layer.blocks.map((block) => {
          const name = element("span", { textContent: block.name });
          name.style.flexGrow = block.columns;
          return name;
        }));
        const caption = element("figcaption", { textContent: `head ${h + 1}` });
        const map = { layer, l, h, offset, wide, canvas, caption, context: canvas.getContext("2d") };
        map.image = map.context.createImageData(canvas.width, canvas.height);
        maps.push(map);
        canvas.addEventListener("pointermove", (event) => { hovered = { map, event }; tellCell(); });
        canvas.addEventListener("pointerleave", () => { hovered = null; hideTip(); });
        heads.append(element("figure", { className: "head" }, names, canvas, caption));
        offset += layer.rows * wide;
      }
      const title = data.layers.length > 1 ? `Layer ${l + 1}` : "";
      place.append(element("div", { className: "layer" }, element("h3", { textContent: title }), heads));
    });
  };
  const kept = () => Math.floor(step / track.stride); // the latest step whose matrices are in the file
  const drawMatrices = () => {
    if (!track.entries) return;
    for (const { layer, l, h, offset, wide, image, context, caption } of maps) {
      let from = kept() * cells + offset, pixels = image.data;
      for (let r = 0; r < layer.rows; r++) {
        let to = 4 * r * image.width;
        for (const block of layer.blocks) {
          for (let c = 0; c < block.columns; c++, to += 4, from++) {
            const at = 4 * (track.entries[from] + 127);
            pixels[to] = colours[at]; pixels[to + 1] = colours[at + 1];
            pixels[to + 2] = colours[at + 2]; pixels[to + 3] = 255;
          }
          to += 4;
        }
      }
      context.putImageData(image, 0, 0);
      const size = mean(track.sizes[l], h);
      caption.textContent = `head ${h + 1} · ${layer.shift ? "|shift|" : "|W|"} ${number(size)}`;
    }
  };
  const mean = ({ shape, values }, head) => {
    const [, heads, parts] = shape, start = (step * heads + head) * parts;
    let sum = 0;
    for (let i = 0; i < parts; i++) sum += values[start + i];
    return parts ? sum / parts : 0;
  };
  const tellCell = () => {
    const { map, event } = hovered, box = map.canvas.getBoundingClientRect();
    let x = Math.floor(((event.clientX - box.left) / box.width) * map.canvas.width);
    const row = Math.min(map.layer.rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * map.layer.rows)));
    let before = 0;
    for (const [i, block] of map.layer.blocks.entries()) {
      if (x < block.columns) {
        const column = Math.max(0, x);
        const entry = track.entries[kept() * cells + map.offset + row * map.wide + before + column];
        const ends = Math.abs(entry) === 127 ? (entry > 0 ? "≥ " : "≤ ") : "";
        const lines = [`W_${block.name}[${row}, ${column}], layer ${map.l + 1}, head ${map.h + 1}`,
          `${ends}${number((entry / 127) * data.scale)}`];
        const size = track.sizes[map.l], part = (size.shape[1] * step + map.h) * size.shape[2] + i;
        lines.push(`${data.sizeTitle} of ${block.name}: ${number(size.values[part])}`);
        const rate = track.rates[map.l];
        if (i < rate.shape[2]) lines.push(`b of ${block.name}: ${number(rate.values[(rate.shape[1] * step + map.h) * rate.shape[2] + i])}`);
        showTip(lines.join("\n"), event);
        return;
      }
      x -= block.columns + 1;
      before += block.columns;
      if (x < 0) x = 0;
    }
    hideTip();
  };

  const showTip = (text, event) => {
    const tip = byId("tip");
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = event.clientX + 14 + box.width > innerWidth ? event.clientX - 14 - box.width : event.clientX + 14;
    const top = event.clientY + 14 + box.height > innerHeight ? event.clientY - 14 - box.height : event.clientY + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  };
  const hideTip = () => { byId("tip").hidden = true; };

  // Charts: drawn once for a track and a width; what changes with the step is the cursor and the numbers.
  let panels = [];
  const makeCharts = () => {
    panels.forEach(({ figure }) => figure.remove());
    panels = track.charts.map((chart) => {
      const numbers = chart.lines.map((line) => {
        const shown = element("b");
        shown.style.color = chart.kind === "strip" ? GREY : line.colour;
        return shown;
      });
      const canvas = element("canvas");
      const title = element("h3", {}, element("span", { textContent: chart.title }));
      if (chart.kind !== "strip") title.append(...numbers);
      else title.append((numbers[0] = element("b")));
      const figure = element("div", { className: chart.kind === "lines" && chart.lines.length > 1 ? "chart many" : "chart" }, title, canvas);
      byId("charts").append(figure);
      return { chart, canvas, numbers, figure };
    });
    drawCharts();
  };
  const place = (t, width) => LEFT + ((t + 0.5) / track.steps) * (width - LEFT - RIGHT);
  const drawCharts = () => {
    const width = byId("charts").clientWidth;
    panels.forEach(({ chart, canvas }, index) => {
      const last = index === panels.length - 1;
      const plot = chart.kind === "strip" ? Math.max(44, 15 * chart.lines.length) : chart.kind === "stems" ? 44 : 72;
      const height = plot + 2 * ABOVE + (last ? 16 : 0), ratio = devicePixelRatio || 1;
      canvas.style.height = `${height}px`;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = FONT;
      pen.textBaseline = "middle";
      const y = (value) => ABOVE + plot * (1 - (value - chart.low) / (chart.high - chart.low));
      const x = (t) => place(t, width);
      if (chart.kind === "strip") drawStrip(pen, chart, x, plot);
      else drawLines(pen, chart, x, y, width);
      pen.strokeStyle = INK;
      pen.lineWidth = 1;
      pen.setLineDash([3, 3]);
      pen.beginPath();
      for (const t of track.ended) {
        const at = (x(t) + x(t + 1)) / 2;
        if (t + 1 < track.steps) { pen.moveTo(at, ABOVE); pen.lineTo(at, ABOVE + plot); }
      }
      pen.stroke();
      pen.setLineDash([]);
      if (last) drawAxis(pen, x, ABOVE + plot);
    });
  };
  const drawLines = (pen, chart, x, y, width) => {
    pen.textAlign = "right";
    pen.fillStyle = GREY;
    pen.strokeStyle = PALE;
    pen.lineWidth = 1;
    const levels = [chart.low, chart.high];
    if (chart.low < 0 && chart.high > 0 && y(0) - y(chart.high) > 14 && y(chart.low) - y(0) > 14) levels.push(0);
    pen.beginPath();
    for (const level of levels) {
      pen.fillText(number(level), LEFT - 8, y(level));
      pen.moveTo(LEFT, y(level));
      pen.lineTo(width - RIGHT, y(level));
    }
    pen.stroke();
    for (const line of chart.lines) {
      pen.strokeStyle = line.colour;
      pen.lineWidth = 1.6;
      pen.beginPath();
      line.values.forEach((value, t) => {
        if (chart.kind === "stems") {
          if (value) { pen.moveTo(x(t), y(0)); pen.lineTo(x(t), y(value)); }
        } else if (t === 0 || track.ended.includes(t - 1)) pen.moveTo(x(t), y(value));
        else pen.lineTo(x(t), y(value));
      });
      pen.stroke();
    }
  };
  const drawStrip = (pen, chart, x, plot) => {
    const rows = chart.lines.length, high = plot / rows;
    chart.lines.forEach((line, row) => {
      pen.fillStyle = GREY;
      pen.textAlign = "right";
      pen.fillText(line.name, LEFT - 8, ABOVE + (row + 0.5) * high);
      line.values.forEach((value, t) => {
        pen.fillStyle = `rgba(0, 78, 124, ${value})`;
        pen.fillRect(x(t - 0.5), ABOVE + row * high, x(1) - x(0) + 0.5, high - 1);
      });
    });
    const size = Math.min(2.2, Math.max(1, (x(1) - x(0)) / 2));
    chart.marks.forEach((marks, t) => marks.forEach((row) => {
      pen.fillStyle = chart.lines[row].values[t] > 0.55 ? "#fff" : "#d55e00";
      pen.fillRect(x(t) - size / 2, ABOVE + (row + 0.5) * high - size / 2 - 0.5, size, size);
    }));
    pen.strokeStyle = PALE;
    pen.strokeRect(LEFT, ABOVE, x(track.steps - 1) - LEFT + (x(1) - x(0)) / 2, plot);
  };
  const drawAxis = (pen, x, bottom) => {
    const room = x(track.steps - 1) - x(0), most = Math.max(2, Math.floor(room / 70));
    let every = 1;
    for (let power = 1; track.steps / every > most; power *= 10)
      for (const factor of [1, 2, 5]) if (track.steps / every > most) every = factor * power;
    pen.fillStyle = GREY;
    pen.textAlign = "center";
    for (let t = Math.ceil(data.first / every) * every; t < track.steps + data.first; t += every) pen.fillText(String(t), x(t - data.first), bottom + 14);
    pen.textAlign = "right";
    pen.fillText(data.axis, LEFT - 8, bottom + 14);
  };

  const makeFewShot = () => {
    if (!data.fewShot) return;
    document.body.classList.add("fewshot");
    const label = (n) => `label ${n}`;
    const examples = data.examples.map((one, t) => {
      const button = element("button", { className: "tile", type: "button" },
        element("img", { src: one.image, alt: `Example ${t + 1}` }), label(one.label));
      button.addEventListener("click", () => go(t));
      return button;
    });
    const answers = data.queries.map((query, q) => element("div", { className: "answer" },
      element("div", { className: "tile" }, element("img", { src: query.image, alt: `Query ${q + 1}` }), label(query.label)),
      element("ol", {}, ...data.answers[0][q].map((_, n) => element("li", { className: n === query.label ? "right" : "" },
        element("span", { textContent: String(n) }), element("i"), element("span"))))));
    byId("fewshot").append(element("h3", { textContent: "Examples, in the order in which they are shown" }),
      element("div", { className: "strip" }, ...examples),
      element("h3", { textContent: "Queries: probability of each label after this example; the right one is blue" }),
      element("div", { className: "answers" }, ...answers));
    makeFewShot.update = () => {
      examples.forEach((tile, t) => { tile.className = `tile${t === step ? " now" : t > step ? " later" : ""}`; });
      answers.forEach((answer, q) => answer.querySelectorAll("li").forEach((item, n) => {
        const p = data.answers[step][q][n];
        item.children[1].style.width = `${100 * p}%`;
        item.children[2].textContent = p.toFixed(2);
      }));
    };
  };

  const tell = () => {
    const find = (title) => track.charts.find((chart) => chart.title === title);
    const rows = [[data.axis, step + data.first]];
    if (data.fewShot) rows.push(["label", data.examples[step].label]);
    else {
      rows.push(["episode", track.episodes[step]], ["return so far", number(track.returns[step])],
        ["reward", number(find("reward").lines[0].values[step])]);
      if (find("value")) rows.push(["value", number(find("value").lines[0].values[step])]);
      const strip = track.charts.find((chart) => chart.kind === "strip");
      if (strip && strip.marks[step] && strip.marks[step].length) rows.push(["action", strip.marks[step].map((i) => strip.lines[i].name).join(", ")]);
    }
    byId("readout").replaceChildren(...rows.map(([name, value]) => element("div", {},
      element("dt", { textContent: name }), element("dd", { textContent: String(value) }))));
    panels.forEach(({ chart, numbers }) => {
      if (chart.kind === "strip") {
        const most = chart.lines.reduce((a, b) => (b.values[step] > a.values[step] ? b : a));
        numbers[0].textContent = `most: ${most.name} ${number(most.values[step])}`;
      } else chart.lines.forEach((line, i) => { numbers[i].textContent = `${chart.lines.length > 1 ? `${line.name} ` : ""}${number(line.values[step])}`; });
    });
  };
  const show = () => {
    const source = track.screens[step];
    if (source && byId("screen").dataset.step !== `${track.name} ${step}`) {
      byId("screen").src = source;
      byId("screen").dataset.step = `${track.name} ${step}`;
    }
    byId("cursor").style.left = `${place(step, byId("charts").clientWidth)}px`;
    byId("slider").value = step;
    byId("where").textContent = `${data.axis} ${step + data.first} of ${track.steps - 1 + data.first}`;
    tell();
    drawMatrices();
    if (makeFewShot.update) makeFewShot.update();
    if (hovered) tellCell();
  };
  const go = (to) => {
    step = Math.min(track.steps - 1, Math.max(0, Math.round(to)));
    show();
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    byId("play").className = "";
    byId("play").setAttribute("aria-label", "Play");
  };
  const play = () => {
    if (step === track.steps - 1) go(0);
    timer = setInterval(() => (step === track.steps - 1 ? pause() : go(step + 1)), 1000 / data.fps);
    byId("play").className = "playing";
    byId("play").setAttribute("aria-label", "Pause");
  };
  const toggle = () => (timer === null ? play() : pause());

  const choose = async (one) => {
    pause();
    track = one;
    await load(one);
    document.querySelectorAll("#tabs button").forEach((button, i) => button.setAttribute("aria-selected", data.tracks[i] === one));
    const pictured = one.screens.some(Boolean);
    byId("frame").hidden = !pictured;
    byId("frame").style.aspectRatio = pictured ? one.ratio : "auto";
    byId("seen").classList.toggle("blank", !pictured);
    byId("slider").max = one.steps - 1;
    makeCharts();
    go(Math.min(step, one.steps - 1));
    document.body.dataset.ready = one.name;
  };

  byId("screen").addEventListener("load", (event) => byId("frame").classList.toggle("small", event.target.naturalHeight < 100));

  const stepAt = (event) => {
    const box = byId("charts").getBoundingClientRect();
    return Math.min(track.steps - 1, Math.max(0, Math.floor(((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * track.steps)));
  };
  byId("charts").addEventListener("pointerdown", (event) => { pause(); go(stepAt(event)); });
  byId("charts").addEventListener("pointermove", (event) => {
    if (event.buttons) go(stepAt(event));
    const t = stepAt(event);
    const panel = panels.find(({ canvas }) => { const box = canvas.getBoundingClientRect(); return event.clientY >= box.top && event.clientY <= box.bottom; });
    if (!panel) return hideTip();
    const lines = panel.chart.kind === "strip"
      ? [...panel.chart.lines].sort((a, b) => b.values[t] - a.values[t]).slice(0, 5) : panel.chart.lines;
    showTip([`${data.axis} ${t + data.first}: ${panel.chart.title}`, ...lines.map((line) => `${line.name} ${number(line.values[t])}`)].join("\n"), event);
  });
  byId("charts").addEventListener("pointerleave", hideTip);
  byId("slider").addEventListener("input", (event) => { pause(); go(Number(event.target.value)); });
  byId("play").addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const far = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: step - far, ArrowRight: step + far, Home: 0, End: track.steps - 1 };
    if (event.key in moves) { pause(); go(moves[event.key]); }
    else if (event.key === " " && event.target.tagName !== "BUTTON") toggle();
    else return;
    event.preventDefault(); // the slider and the page would move too
  });
  addEventListener("resize", () => { drawCharts(); show(); });

  makeMatrices();
  makeFewShot();
  if (data.tracks.length > 1) byId("tabs").append(...data.tracks.map((one) => {
    const button = element("button", { type: "button", textContent: one.name });
    button.setAttribute("role", "tab");
    button.addEventListener("click", () => choose(one));
    return button;
  }));
  choose(data.tracks[0]);
})();
