/* Keeps the pages current: presses hidden buttons, so that every Gradio is the same.
 *
 * - A page that is on screen is asked for news: once a second while a job runs, every
 *   four seconds otherwise, never in a background tab of the browser.
 * - After typing or dragging ends, the merge is planned again.
 */
(function () {
    "use strict";
    if (window.mergePages) {
        return;
    }

    const BUSY_MS = 1000;
    const IDLE_MS = 4000;
    const TYPING_MS = 350;
    const POLLS = {
        "merge-poll": "merge-status",
        "merge-mbw-poll": "merge-mbw-live",
        "merge-ins-poll": "merge-ins-live",
        "merge-cmp-poll": "merge-cmp-live",
        "merge-rb-poll": "merge-rb-live",
        "merge-rec-poll": "merge-rec-live",
    };
    const PLANS = { "#merge-columns": "merge-plan", "#merge-mbw-columns": "merge-mbw-plan" };
    const asked = {};
    let typing = 0;

    const byId = (id) => document.getElementById(id);

    function press(id) {
        const place = byId(id);
        const button = place && (place.matches("button") ? place : place.querySelector("button"));
        if (button) {
            button.click();
        }
    }

    function isOnScreen(element) {
        return Boolean(element && element.offsetParent !== null);
    }

    function look(now) {
        for (const [poll, view] of Object.entries(POLLS)) {
            const element = byId(view);
            if (!isOnScreen(element)) {
                asked[poll] = 0;
                continue;
            }
            const isBusy = Boolean(element.querySelector("[data-merge-busy]"));
            if (now - (asked[poll] || 0) >= (isBusy ? BUSY_MS : IDLE_MS) - 50) {
                asked[poll] = now;
                press(poll);
            }
        }
    }

    function replanSoon(event) {
        // A change of method is planned with the controls that it brings.
        if (event.target.closest("#merge-method, #merge-mbw-method")) {
            return;
        }
        for (const [area, button] of Object.entries(PLANS)) {
            if (event.target.closest(area) && !event.target.closest("#merge-name")) {
                window.clearTimeout(typing);
                typing = window.setTimeout(() => press(button), TYPING_MS);
            }
        }
    }

    /* A pressed button has news soon: ask ahead of the next turn. */
    function askSoon(event) {
        if (event.target.closest("#merge-columns button, #merge-mbw-columns button, #merge-ins-choice button, #merge-ins-tools button, #merge-ins-remedies button, #merge-cmp-choice button, #merge-rb-choice button, #merge-rec-run button")) {
            window.setTimeout(() => {
                Object.keys(POLLS).forEach((poll) => delete asked[poll]);
                look(Date.now());
            }, 300);
        }
    }

    window.setInterval(() => {
        if (!document.hidden) {
            look(Date.now());
        }
    }, BUSY_MS);
    document.addEventListener("input", replanSoon);
    document.addEventListener("change", replanSoon);
    document.addEventListener("click", askSoon);
    window.mergePages = { look };
})();
