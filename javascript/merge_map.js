/* Ticks models of a comparison: by their box in the table, or by a click on the map.
 *
 * The boxes hold the state; a hidden field carries it to the server. Gradio draws the
 * view anew after every change, with the boxes as they were; the marks in the charts
 * follow the boxes.
 */
(function () {
    "use strict";
    if (window.mergeMap) {
        return;
    }

    const VIEW = "merge-cmp-view";
    const FIELD = "#merge-cmp-picked textarea, #merge-cmp-picked input";

    const view = () => document.getElementById(VIEW);
    const boxes = () => Array.from(view()?.querySelectorAll("[data-merge-tick]") || []);

    function ticked() {
        return boxes()
            .filter((box) => box.checked)
            .map((box) => box.dataset.mergeTick);
    }

    /* Show in the charts which models are ticked. */
    function mark() {
        const chosen = new Set(ticked());
        for (const shape of view()?.querySelectorAll("[data-model]") || []) {
            shape.classList.toggle("merge-ticked", chosen.has(shape.dataset.model));
        }
    }

    function tell() {
        const field = document.querySelector(FIELD);
        if (field) {
            field.value = ticked().join(",");
            field.dispatchEvent(new Event("input", { bubbles: true }));
        }
        mark();
    }

    function onChange(event) {
        if (event.target.matches?.(`#${VIEW} [data-merge-tick]`)) {
            tell();
        }
    }

    function onClick(event) {
        const shape = event.target.closest?.(`#${VIEW} [data-model]`);
        if (!shape) {
            return;
        }
        const box = boxes().find((one) => one.dataset.mergeTick === shape.dataset.model);
        if (box) {
            box.checked = !box.checked;
            tell();
        }
    }

    document.addEventListener("change", onChange);
    document.addEventListener("click", onClick);
    window.setInterval(() => {
        if (!document.hidden && view()?.offsetParent) {
            mark();
        }
    }, 1000);
    window.mergeMap = { ticked, mark };
})();
