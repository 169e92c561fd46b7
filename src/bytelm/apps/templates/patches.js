"use strict";
(() => {
  const decode = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const decode16 = (text) => {
    const bytes = decode(text);
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
  };
  const hex = (value) => "0x" + value.toString(16).toUpperCase().padStart(2, "0");
  const label = (value) => {
    if (value === 10) return "\u23ce";
    if (value === 9) return "\u21e5";
    if (value === 32) return "\u2423";
    if (value === 127) return "\u2421";
    if (value < 32) return String.fromCharCode(0x2400 + value);
    return value < 127 ? String.fromCharCode(value) : hex(value).slice(2);
  };
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const row = (name, value) => {
    const made = element("div", "row");
    made.append(element("span", "", name), element("span", "", value));
    return made;
  };

  const start = (root) => {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const area = root.querySelector(".bytes");
    const tip = root.querySelector(".tip");
    const cells = Array.from(area.querySelectorAll("i"));
    const bytes = decode(data.bytes);
    const entropies = data.entropies && decode16(data.entropies);
    const surprises = data.surprises && decode16(data.surprises);
    const topBytes = data.topBytes && decode(data.topBytes);
    const topProbs = data.topProbs && decode16(data.topProbs);
    const patchOf = new Uint32Array(bytes.length);
    const starts = [];
    data.lengths.reduce((at, length, patch) => {
      starts.push(at);
      patchOf.fill(patch, at, at + length);
      return at + length;
    }, 0);
    cells.forEach((cell, index) => { cell.index = index; });
    let now = -1;

    const describe = (index) => {
      const head = element("div", "head");
      head.append(element("b", "mono", label(bytes[index])),
        element("span", "mono", hex(bytes[index])),
        element("span", "", "byte " + index.toLocaleString("en")));
      tip.replaceChildren(head);
      const patch = patchOf[index];
      tip.append(row("patch " + (patch + 1).toLocaleString("en"),
        (index - starts[patch] + 1) + " of " + data.lengths[patch] + " bytes"));
      if (entropies) {
        const nats = entropies[index] / 1000;
        tip.append(row("entropy", (nats / Math.LN2).toFixed(2) + " bits (" + nats.toFixed(2) + " nats)"));
      }
      if (surprises) tip.append(row("surprise", (surprises[index] / 1000 / Math.LN2).toFixed(2) + " bits"));
      if (topBytes) tip.append(element("hr"));
      for (let rank = 0; rank < data.numTop; rank++) {
        const value = topBytes[index * data.numTop + rank];
        const share = topProbs[index * data.numTop + rank] / 65535;
        const guess = element("div", value === bytes[index] ? "guess hit" : "guess");
        const track = element("div", "track");
        const fill = element("div", "fill");
        fill.style.width = (100 * share).toFixed(1) + "%";
        track.append(fill);
        guess.append(element("span", "mono", label(value)), track,
          element("span", "", (100 * share).toFixed(share < 0.1 ? 2 : 1) + " %"));
        tip.append(guess);
      }
    };
    const hide = () => {
      if (now >= 0) cells[now].classList.remove("now");
      now = -1;
      tip.hidden = true;
    };
    const show = (index) => {
      if (index === now) return;
      hide();
      now = index;
      const cell = cells[index];
      cell.classList.add("now");
      describe(index);
      tip.hidden = false;
      const box = cell.getBoundingClientRect();
      const below = box.bottom + 10 + tip.offsetHeight < innerHeight;
      tip.style.top = Math.max(8, below ? box.bottom + 10 : box.top - 10 - tip.offsetHeight) + "px";
      tip.style.left = Math.max(8, Math.min(box.left - 20, innerWidth - tip.offsetWidth - 12)) + "px";
    };

    area.addEventListener("pointerover", (event) => {
      if (event.target.index !== undefined) show(event.target.index);
    });
    area.addEventListener("pointerleave", hide);
    area.addEventListener("blur", hide);
    addEventListener("scroll", () => { if (now >= 0 && document.activeElement !== area) hide(); }, { passive: true });
    area.addEventListener("keydown", (event) => {
      const last = bytes.length - 1;
      if (last < 0) return;
      const patch = now < 0 ? -1 : patchOf[now];
      let next;
      if (event.key === "ArrowRight") {
        next = event.shiftKey ? (patch + 1 < starts.length ? starts[patch + 1] : last) : now + 1;
      } else if (event.key === "ArrowLeft") {
        next = event.shiftKey ? starts[Math.max(0, patch - 1)] : now - 1;
      } else if (event.key === "Home") next = 0;
      else if (event.key === "End") next = last;
      else if (event.key === "Escape") { hide(); return; }
      else return;
      event.preventDefault();
      next = Math.min(last, Math.max(0, next));
      cells[next].scrollIntoView({ block: "nearest" });
      show(next);
    });
    const scale = root.querySelector(".scale");
    for (const button of root.querySelectorAll("button[data-mode]")) {
      button.addEventListener("click", () => {
        area.classList.remove("patch", "entropy", "surprise");
        area.classList.add(button.dataset.mode);
        scale.classList.toggle("orange", button.dataset.mode === "surprise");
        for (const other of root.querySelectorAll("button[data-mode]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
      });
    }
  };
  document.querySelectorAll(".patch-view").forEach(start);
})();
