"use strict";
(function () {
  var parsed = function (id) { return JSON.parse(document.getElementById(id).textContent); };
  var all = function (selector, root) { return Array.from((root || document).querySelectorAll(selector)); };

  // --- numbers and ticks --------------------------------------------------------------------------------------

  function number(value, digits) {
    if (value === null || !isFinite(value)) return "\u2013";
    var rounded = Number(value.toPrecision(digits || 3)), size = Math.abs(rounded);
    return size && (size < 1e-4 || size >= 1e7) ? rounded.toExponential().replace("e+", "e") : String(rounded);
  }
  function place(axis, from, to) {
    var as = axis.log ? Math.log10 : Number, low = as(axis.low), span = as(axis.high) - low;
    return function (value) { return from + (as(value) - low) / span * (to - from); };
  }
  function evenTicks(axis, room) {
    var rough = (axis.high - axis.low) / Math.max(room, 1), power = Math.pow(10, Math.floor(Math.log10(rough)));
    var step = [1, 2, 5, 10].find(function (digit) { return digit * power >= rough * 0.999; }) * power;
    if (axis.whole) step = Math.max(1, step);
    var values = [];
    for (var i = Math.ceil(axis.low / step - 1e-9); i * step <= axis.high + step * 1e-9; i++) {
      values.push(Number((i * step).toPrecision(12)));
    }
    return values;
  }
  function ticks(axis, room) {
    if (!axis.log || axis.high / axis.low < 2.5) return evenTicks(axis, room);
    var span = Math.log10(axis.high / axis.low);
    var kinds = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]], first = Math.floor(Math.log10(axis.low));
    for (var every = 1; ; every++) {
      for (var kind = every === 1 ? 0 : kinds.length - 1; kind < kinds.length; kind++) {
        var values = [];
        for (var power = first; Math.pow(10, power) <= axis.high; power += every) {
          kinds[kind].forEach(function (digit) {
            var value = Number((digit + "e" + power));
            if (value >= axis.low && value <= axis.high) values.push(value);
          });
        }
        // The labels of 8, 9 and 10 are the first to touch: not only how many there are counts.
        var apart = values.every(function (value, i) { return !i || Math.log10(value / values[i - 1]) >= 0.6 * span / room; });
        if (values.length <= 2 || (values.length <= room && apart)) return values;
      }
    }
  }

  // --- a chart ------------------------------------------------------------------------------------------------

  var SYMBOLS = {
    circle: function (x, y, r) { return "M" + (x - r) + " " + y + "a" + r + " " + r + " 0 1 0 " + 2 * r + " 0a" + r + " " + r + " 0 1 0 " + -2 * r + " 0Z"; },
    cross: function (x, y, r) { return "M" + (x - r) + " " + (y - r) + "l" + 2 * r + " " + 2 * r + "M" + (x + r) + " " + (y - r) + "l" + -2 * r + " " + 2 * r; },
    square: polygon(4, 45, 1.1), diamond: polygon(4, 0, 1.2), "triangle-up": polygon(3, 0, 1.2),
    "triangle-down": polygon(3, 180, 1.2), pentagon: polygon(5, 0, 1.1), hexagon: polygon(6, 30, 1.1), star: polygon(5, 0, 1.4, 0.5)
  };
  function polygon(corners, turn, size, waist) {
    return function (x, y, r) {
      var path = "";
      for (var i = 0; i < corners * (waist ? 2 : 1); i++) {
        var angle = (turn + i * 360 / (corners * (waist ? 2 : 1))) * Math.PI / 180, reach = r * size * (waist && i % 2 ? waist : 1);
        path += (i ? "L" : "M") + (x + reach * Math.sin(angle)).toFixed(1) + " " + (y - reach * Math.cos(angle)).toFixed(1);
      }
      return path + "Z";
    };
  }
  function node(parent, name, attributes, text) {
    var made = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    Object.keys(attributes).forEach(function (key) { made.setAttribute(key, attributes[key]); });
    if (text !== undefined) made.textContent = text;
    return made;
  }

  var drawn = 0;
  function draw(element, chart, width, height) {
    if (!width || !height) return;
    element.textContent = "";
    var figure = element.closest("figure"), titled = !figure || !figure.querySelector("h3");
    var top = titled ? 24 : 10, bottom = height - 38, right = width - 8;
    var yTicks = ticks(chart.y, (bottom - top) / 34);
    var left = 8 + 7 * Math.max.apply(null, [2].concat(yTicks.map(function (value) { return number(value).length; })));
    var x = place(chart.x, left, right), y = place(chart.y, bottom, top), clip = "clip" + drawn++;
    var svg = node(element, "svg", {viewBox: "0 0 " + width + " " + height, "aria-hidden": "true"});
    node(node(svg, "clipPath", {id: clip}), "rect", {x: left, y: top, width: right - left, height: bottom - top});

    var grid = node(svg, "path", {"class": "grid"}), lines = "";
    yTicks.forEach(function (value) {
      lines += "M" + left + " " + y(value) + "H" + right;
      node(svg, "text", {x: left - 7, y: y(value) + 4, "text-anchor": "end"}, number(value));
    });
    ticks(chart.x, (right - left) / 62).forEach(function (value) {
      var at = x(value), label = number(value), half = 3.4 * label.length;
      lines += "M" + at + " " + top + "V" + bottom;
      node(svg, "text", {x: Math.min(at, width - half), y: bottom + 17, "text-anchor": "middle"}, label);
    });
    grid.setAttribute("d", lines);
    if (titled) node(svg, "text", {x: 0, y: 12}, chart.y.title);
    node(svg, "text", {x: (left + right) / 2, y: height - 3, "text-anchor": "middle"}, chart.x.title);

    if (chart.band) node(svg, "rect", {"class": "band", x: x(chart.band[0]), y: top, width: x(chart.band[1]) - x(chart.band[0]), height: bottom - top});
    var off = hiddenKeys(element);
    chart.series.forEach(function (series) {
      var group = node(svg, "g", {"class": "series", opacity: series.opacity === undefined ? 1 : series.opacity});
      if (series.key !== undefined) group.dataset.key = series.key;
      if (off.has(series.key)) group.style.display = "none";
      if (series.filled) {
        var area = series.x.map(function (value, i) { return x(value).toFixed(1) + " " + y(series.y[i]).toFixed(1); });
        node(group, "path", {d: "M" + area.join("L") + "Z", fill: series.color, "clip-path": "url(#" + clip + ")"});
      }
      if (series.width) {
        var path = "";
        series.x.forEach(function (value, i) {
          var px = x(value).toFixed(1), py = y(series.y[i]).toFixed(1);
          path += i ? (series.stairs ? "H" + px + "V" + py : "L" + px + " " + py) : "M" + px + " " + py;
        });
        node(group, "path", {d: path, fill: "none", stroke: series.color, "stroke-width": series.width, "stroke-linejoin": "round",
                             "stroke-dasharray": series.dash.join(" "), "clip-path": "url(#" + clip + ")"});
      }
      if (series.marker) {
        var lone = series.marker === "hollow" || series.marker === "cross";
        var symbol = SYMBOLS[series.marker === "cross" ? "cross" : series.symbol], size = series.marker === "small" ? 2.6 : 5;
        node(group, "path", {d: series.x.map(function (value, i) { return symbol(x(value), y(series.y[i]), size); }).join(""),
                             fill: lone ? "none" : series.color, stroke: series.color, "stroke-width": lone ? 2 : 0});
      }
    });
    (chart.marks || []).forEach(function (mark) {
      var at = x(mark.x);
      node(svg, "path", {"class": "marks", d: "M" + at + " " + top + "V" + bottom, "stroke-dasharray": mark.dashed ? "6 4" : ""});
      node(svg, "text", {"class": "mark", x: at + (mark.left ? -5 : 5), y: top + 14 + 17 * mark.row, "text-anchor": mark.left ? "end" : "start"}, mark.label);
    });
    hover(element, svg, chart, x, y, width);
  }

  // The nearest point's figures, beside it.
  function hover(element, svg, chart, x, y, width) {
    var tip = null, ring = null, points = null;
    function leave() { if (tip) { tip.remove(); ring.remove(); tip = ring = null; } }
    function move(event) {
      points = points || chart.series.filter(function (series) { return !series.silent; }).map(function (series) {
        return {series: series, x: series.x.map(x), y: series.y.map(y)};
      });
      var box = svg.getBoundingClientRect(), atX = (event.clientX - box.left) * width / box.width, atY = (event.clientY - box.top) * width / box.width;
      var off = hiddenKeys(element), best = null, least = 45 * 45;
      points.forEach(function (line) {
        if (off.has(line.series.key)) return;
        for (var i = 0; i < line.x.length; i++) {
          var distance = (line.x[i] - atX) * (line.x[i] - atX) + (line.y[i] - atY) * (line.y[i] - atY);
          if (distance < least) { least = distance; best = {line: line, i: i}; }
        }
      });
      if (!best) return leave();
      var series = best.line.series, px = best.line.x[best.i], py = best.line.y[best.i];
      if (!tip) {
        ring = node(svg, "circle", {"class": "nearest", r: 6});
        tip = element.appendChild(document.createElement("div"));
        tip.className = "tip";
      }
      ring.setAttribute("cx", px);
      ring.setAttribute("cy", py);
      tip.textContent = series.hover ? series.hover[best.i]
        : (series.name ? series.name + "\n" : "") + chart.x.title + " " + number(series.x[best.i], 4) + ": " + number(series.y[best.i], 4);
      tip.style.whiteSpace = "pre-line";
      tip.style.left = Math.max(0, Math.min(px + 12, width - tip.offsetWidth)) + "px";
      tip.style.top = (py > tip.offsetHeight + 16 ? py - tip.offsetHeight - 12 : py + 14) + "px";
    }
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  }

  // --- the charts of the page ---------------------------------------------------------------------------------

  var charts = parsed("charts"), shown = new Map();
  function show(elements, chartOf) {
    var sizes = elements.map(function (element) { return [element.clientWidth, element.clientHeight]; });  // all before any is drawn
    elements.forEach(function (element, i) {
      var chart = chartOf(element, i);
      shown.set(element, chart);
      draw(element, chart, sizes[i][0], sizes[i][1]);
      resized.observe(element);
    });
  }
  var resized = new ResizeObserver(function (entries) {
    entries.forEach(function (entry) {
      var element = entry.target, svg = element.querySelector("svg"), width = element.clientWidth;
      if (!printing && (!svg || svg.viewBox.baseVal.width !== width)) draw(element, shown.get(element), width, element.clientHeight);
    });
  });
  var printing = false;
  window.addEventListener("beforeprint", function () {  // paper is narrower than a screen
    printing = true;
    shown.forEach(function (chart, element) { draw(element, chart, 680, element.style.height ? parseInt(element.style.height, 10) : 290); });
  });
  window.addEventListener("afterprint", function () {
    printing = false;
    shown.forEach(function (chart, element) { draw(element, chart, element.clientWidth, element.clientHeight); });
  });
  show(all(".chart[data-chart]"), function (element) { return charts[element.dataset.chart]; });

  // A button of a legend hides its curves in every chart of the group; pointing at it lights them up.
  function hiddenKeys(element) {
    var group = element.closest(".group");
    return new Set(group ? all(".legend button[aria-pressed=false]", group).map(function (button) { return button.dataset.key; }) : []);
  }
  all(".group").forEach(function (group) {
    all(".legend button", group).forEach(function (button) {
      var own = function () {
        return all(".series", group).filter(function (series) { return series.dataset.key === button.dataset.key; });
      };
      var light = function (on) {
        group.classList.toggle("dim", on && button.getAttribute("aria-pressed") === "true");
        own().forEach(function (series) { series.classList.toggle("lit", on); });
      };
      button.addEventListener("click", function () {
        var on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", on);
        own().forEach(function (series) { series.style.display = on ? "" : "none"; });
        light(on);
      });
      button.addEventListener("pointerenter", function (event) { if (event.pointerType === "mouse") light(true); });
      button.addEventListener("pointerleave", function () { light(false); });
    });
  });

  all(".code button").forEach(function (button) {
    button.addEventListener("click", function () {
      var pre = button.parentNode.querySelector("pre");
      var done = function () {
        button.textContent = "Copied";
        setTimeout(function () { button.textContent = "Copy"; }, 1500);
      };
      var select = function () {  // where a page may not write to the clipboard
        window.getSelection().selectAllChildren(pre);
        if (document.execCommand("copy")) done();
      };
      if (navigator.clipboard) navigator.clipboard.writeText(pre.textContent).then(done, select); else select();
    });
  });

  // --- the table of trials ------------------------------------------------------------------------------------

  var table = document.getElementById("trials");
  if (!table) return;
  var body = table.tBodies[0];
  var rows = all("tr.trial", body), contents = new Map(), curves = null;
  var text = document.getElementById("filter-text");
  var choices = ["phase", "state", "schedule"].map(function (name) { return document.getElementById("filter-" + name); });
  var count = document.getElementById("filter-count");
  rows.forEach(function (row) { contents.set(row, row.textContent.toLowerCase()); });

  function closeDetails() {
    all("tr.detail", body).forEach(function (row) {
      all(".chart", row).forEach(function (chart) { shown.delete(chart); resized.unobserve(chart); });
      row.remove();
    });
    all("button[aria-expanded=true]", body).forEach(function (button) { button.setAttribute("aria-expanded", "false"); });
  }
  function filter() {
    closeDetails();
    var words = text.value.toLowerCase().split(/\s+/).filter(Boolean), left = 0;
    rows.forEach(function (row) {
      row.hidden = choices.some(function (choice) { return choice.value && row.dataset[choice.id.slice(7)] !== choice.value; })
        || !words.every(function (word) { return contents.get(row).includes(word); });
      left += !row.hidden;
    });
    count.textContent = left === rows.length ? rows.length + " trials" : left + " of " + rows.length + " trials";
  }
  [text].concat(choices).forEach(function (control) { control.addEventListener("input", filter); });
  filter();

  all("th", table).forEach(function (head, column) {
    var button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", function () {
      closeDetails();
      var up = head.getAttribute("aria-sort") !== "ascending";
      all("th", table).forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var value = function (row) { return row.cells[column].dataset.v; };
      rows.sort(function (a, b) {
        var x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");  // what is missing stays last
        var order = head.classList.contains("n") ? x - y : x.localeCompare(y);
        return up ? order : -order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });

  all("button[data-trial]", body).forEach(function (button) {
    button.addEventListener("click", function () {
      var open = button.getAttribute("aria-expanded") === "true";
      closeDetails();
      if (open) return;
      button.setAttribute("aria-expanded", "true");
      curves = curves || parsed("curves");
      var row = button.closest("tr"), detail = body.insertRow(row.sectionRowIndex + 1), cell = detail.insertCell();
      detail.className = "detail";
      cell.colSpan = row.cells.length;
      var two = cell.appendChild(document.createElement("div"));
      two.className = "two";
      two.style.width = table.parentNode.clientWidth + "px";  // the table may be wider than the screen
      var elements = curves[button.dataset.trial].map(function () {
        var element = two.appendChild(document.createElement("div"));
        element.className = "chart";
        return element;
      });
      show(elements, function (element, i) { return curves[button.dataset.trial][i]; });
    });
  });
})();
