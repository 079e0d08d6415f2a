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
    const POLLS = { "merge-poll": "merge-status", "merge-mbw-poll": "merge-mbw-live" };
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
        if (event.target.closest("#merge-columns") && !event.target.closest("#merge-name")) {
            window.clearTimeout(typing);
            typing = window.setTimeout(() => press("merge-plan"), TYPING_MS);
        }
    }

    window.setInterval(() => {
        if (!document.hidden) {
            look(Date.now());
        }
    }, BUSY_MS);
    document.addEventListener("input", replanSoon);
    document.addEventListener("change", replanSoon);
    window.mergePages = { look };
})();
