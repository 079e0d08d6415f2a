/* The block editor: sliders and numbers on one side, the text box on the other.
 *
 * The text box is what the server reads; the sliders are a view of one parameter in it.
 * Blocks that the text does not name follow the main value. Events are delegated from
 * the document, because the server may draw the editor anew at any time.
 */
(function () {
    "use strict";
    if (window.mergeBlocks) {
        return;
    }

    const past = [];
    const future = [];
    const LIMIT = 200;

    const editor = () => document.querySelector("#merge-editor-view .merge-editor");
    const textBox = () =>
        document.querySelector("#merge-weights textarea, #merge-weights input");
    const cells = () => [...editor().querySelectorAll(".merge-cell[data-block]")];
    const inputs = (cell) => [...cell.querySelectorAll("input")];
    const isOwn = (cell) => cell.classList.contains("merge-own");

    function show(cell, value, own) {
        for (const input of inputs(cell)) {
            input.value = String(value);
        }
        cell.classList.toggle("merge-own", own);
    }

    function valueOf(cell) {
        return Number(cell.querySelector("input[type=number]").value);
    }

    function short(value) {
        return String(Number(value.toPrecision(6)));
    }

    /* The blocks in the forward pass's order: down the left side, up the right one. */
    function ordered() {
        const rank = (cell) => {
            const name = cell.dataset.block;
            const number = name.match(/^(IN|M|OUT)(\d+)$/);
            if (!number) {
                return name === "OUT" ? 9000 : cells().indexOf(cell) - 1000;
            }
            return { IN: 0, M: 1000, OUT: 2000 }[number[1]] + Number(number[2]);
        };
        return cells().sort((a, b) => rank(a) - rank(b));
    }

    /* The text's pairs with the parameter that each is of: one named before a colon
     * speaks of all that follow it, those ahead of it are of the first parameter. */
    function pairs(text) {
        let param = editor().dataset.first;
        const found = [];
        for (const part of text.split(/[,;\n]+/)) {
            const named = part.match(/^(?:([^=:]+):)?([^=:]+)=([^=:]+)$/);
            const plain = part.match(/^([^=:]+):([^=:]+)$/);
            if (named || plain) {
                param = named && named[1] ? named[1].trim() : param;
                const [name, value] = named ? named.slice(2) : plain.slice(1);
                found.push({ param, name: name.trim(), value: value.trim() });
            }
        }
        return found;
    }

    /* The text with the sliders' values in place of the shown parameter's own. */
    function write() {
        const shown = editor().dataset.param;
        const groups = new Map([[editor().dataset.first, []], [shown, []]]);
        for (const pair of pairs(textBox().value)) {
            if (pair.param !== shown) {
                const group = groups.get(pair.param) || [];
                groups.set(pair.param, [...group, pair.name + "=" + pair.value]);
            }
        }
        groups.set(
            shown,
            ordered()
                .filter(isOwn)
                .map((cell) => cell.dataset.block + "=" + short(valueOf(cell))),
        );
        return [...groups]
            .filter(([, group]) => group.length)
            .map(([name, group]) => {
                const prefix = name === editor().dataset.first ? "" : name + ": ";
                return prefix + group.join(", ");
            })
            .join("; ");
    }

    /* Names that a text's name stands for: a block, a range, BASE or a component. */
    function expand(name) {
        const names = ordered().map((cell) => cell.dataset.block);
        const upper = name.trim().toUpperCase();
        if (upper === "BASE") {
            return ordered()
                .filter((cell) => cell.dataset.text)
                .map((cell) => cell.dataset.block);
        }
        if (names.includes(upper)) {
            return [upper];
        }
        const owned = ordered().filter(
            (cell) => cell.dataset.component.toUpperCase() === upper,
        );
        if (owned.length) {
            return owned.map((cell) => cell.dataset.block);
        }
        const [first, last] = upper.split("-").map((part) => part.trim());
        const start = names.indexOf(first);
        const stop = names.indexOf(last);
        return start >= 0 && stop >= start ? names.slice(start, stop + 1) : [];
    }

    /* The shown parameter's values; a block named alone wins over a range. */
    function read(text) {
        const given = pairs(text)
            .filter((pair) => pair.param === editor().dataset.param)
            .map((pair) => [expand(pair.name), Number(pair.value)])
            .filter(([, value]) => Number.isFinite(value));
        const values = new Map();
        for (const isSingle of [false, true]) {
            for (const [names, value] of given) {
                if ((names.length === 1) === isSingle) {
                    names.forEach((name) => values.set(name, value));
                }
            }
        }
        return values;
    }

    function mainValue() {
        return Number(editor().dataset.main);
    }

    function draw(text) {
        if (!editor()) {
            return;
        }
        const values = read(text);
        for (const cell of cells()) {
            const own = values.has(cell.dataset.block);
            show(cell, own ? values.get(cell.dataset.block) : mainValue(), own);
        }
    }

    /* Give the text to Gradio as if it had been typed. */
    function put(text) {
        const box = textBox();
        const kind = box instanceof HTMLTextAreaElement
            ? HTMLTextAreaElement
            : HTMLInputElement;
        Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, text);
        box.dispatchEvent(new Event("input", { bubbles: true }));
    }

    function remember(text) {
        if (past[past.length - 1] !== text) {
            past.push(text);
            past.splice(0, Math.max(0, past.length - LIMIT));
        }
        future.length = 0;
    }

    function change(step) {
        const before = textBox().value;
        step();
        const after = write();
        if (after !== before) {
            remember(before);
            put(after);
        }
    }

    function travel(from, to) {
        if (from.length) {
            to.push(textBox().value);
            const text = from.pop();
            put(text);
            draw(text);
        }
    }

    function setAll() {
        const value = Number(editor().querySelector(".merge-all").value);
        cells().forEach((cell) => show(cell, value, true));
    }

    function mirror() {
        const downs = ordered().filter((cell) => /^IN\d+$/.test(cell.dataset.block));
        const ups = ordered().filter((cell) => /^OUT\d+$/.test(cell.dataset.block));
        ups.reverse().forEach((cell, i) => {
            if (downs[i]) {
                show(cell, valueOf(downs[i]), isOwn(downs[i]));
            }
        });
    }

    function reset() {
        cells().forEach((cell) => show(cell, mainValue(), false));
    }

    const actions = {
        all: () => change(setAll),
        mirror: () => change(mirror),
        reset: () => change(reset),
        undo: () => travel(past, future),
        redo: () => travel(future, past),
    };

    function onClick(event) {
        const button = event.target.closest("#merge-editor-view [data-action]");
        if (button && editor()) {
            actions[button.dataset.action]();
        }
    }

    /* While a slider is dragged only its own number follows; the text waits for the
     * end of the drag, so that undo takes back one drag, not one pixel. */
    function onInput(event) {
        const cell = event.target.closest("#merge-editor-view .merge-cell[data-block]");
        if (cell && event.target.type === "range") {
            show(cell, Number(event.target.value), true);
        } else if (event.target === textBox()) {
            draw(event.target.value);
        } else if (event.target.closest("#merge-params") && editor()) {
            follow(event.target);
        }
    }

    function onChange(event) {
        const cell = event.target.closest("#merge-editor-view .merge-cell[data-block]");
        if (!cell) {
            return;
        }
        const input = event.target;
        const value = Number(input.value);
        if (input.value === "" || !Number.isFinite(value)) {
            draw(textBox().value);
            return;
        }
        const bound = Math.min(Math.max(value, Number(input.min)), Number(input.max));
        change(() => show(cell, bound, true));
    }

    /* The main slider moved: blocks without a value of their own move along. */
    function follow(input) {
        const name = editor().dataset.param;
        const value = Number(input.value);
        const control = input.closest("#merge-params .merge-param");
        const labels = control ? [...control.querySelectorAll("label, span")] : [];
        const isMain = labels.some((label) => label.textContent.trim() === name);
        if (isMain && input.value !== "" && Number.isFinite(value)) {
            editor().dataset.main = String(value);
            cells()
                .filter((cell) => !isOwn(cell))
                .forEach((cell) => show(cell, value, false));
        }
    }

    document.addEventListener("click", onClick);
    document.addEventListener("input", onInput);
    document.addEventListener("change", onChange);
    window.mergeBlocks = { draw, expand, read, write };
})();
