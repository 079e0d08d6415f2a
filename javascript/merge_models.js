/* Chooses a model by a click on its name in the Models page's table.
 *
 * The name goes to the server in a hidden field; a counter before it makes a second
 * click on the same name news, too.
 */
(function () {
    "use strict";
    if (window.mergeModels) {
        return;
    }

    const FIELD = "#merge-ins-picked textarea, #merge-ins-picked input";
    let clicks = 0;

    function onClick(event) {
        const button = event.target.closest?.("#merge-ins-table [data-merge-pick]");
        const field = document.querySelector(FIELD);
        if (button && field) {
            clicks += 1;
            field.value = `${clicks}|${button.dataset.mergePick}`;
            field.dispatchEvent(new Event("input", { bubbles: true }));
        }
    }

    document.addEventListener("click", onClick);
    window.mergeModels = { onClick };
})();
