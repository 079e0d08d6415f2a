/* Chooses a line by a click on its name, in the Models and the Recipes page's table.
 *
 * The name goes to the server in a hidden field; a counter before it makes a second
 * click on the same name news, too.
 */
(function () {
    "use strict";
    if (window.mergeModels) {
        return;
    }

    const FIELDS = {
        "#merge-ins-table": "#merge-ins-picked",
        "#merge-rec-table": "#merge-rec-picked",
    };
    let clicks = 0;

    function onClick(event) {
        const button = event.target.closest?.("[data-merge-pick]");
        const table = button && Object.keys(FIELDS).find((id) => button.closest(id));
        const id = FIELDS[table];
        const field = table && document.querySelector(`${id} textarea, ${id} input`);
        if (field) {
            clicks += 1;
            field.value = `${clicks}|${button.dataset.mergePick}`;
            field.dispatchEvent(new Event("input", { bubbles: true }));
        }
    }

    document.addEventListener("click", onClick);
    window.mergeModels = { onClick };
})();
