/* A button in the WebUI's PNG Info tab that opens a picture's recipe in MergeLab.
 *
 * The picture's generation data goes to the server in a hidden field of the Recipes
 * page; what is found there turns to the Merge page by itself.
 */
(function () {
    "use strict";
    if (window.mergeSend) {
        return;
    }

    const MARK = "MergeLab recipe:";
    const ID = "merge-send";

    function infotext(tab) {
        const field = tab.querySelector("#pnginfo_generation_info textarea");
        // Where the hidden field is not drawn, the text that is shown says the same.
        const text = field && field.value ? field.value : tab.innerText;
        return text.includes(MARK) ? text : "";
    }

    function press(id) {
        const place = document.getElementById(id);
        const button = place && (place.matches("button") ? place : place.querySelector("button"));
        if (button) {
            button.click();
        }
    }

    /* Turns the WebUI to our tab, and our tab to the Recipes page. */
    function turn() {
        const named = (selector, name) =>
            Array.from(document.querySelectorAll(selector)).find((one) => one.textContent.trim() === name);
        named("#tabs > div:first-child button, #tabs > .tab-wrapper button", "MergeLab")?.click();
        named("#merge-pages button", "Recipes")?.click();
    }

    function send() {
        const tab = document.getElementById("tab_pnginfo");
        const field = document.querySelector("#merge-rec-infotext textarea, #merge-rec-infotext input");
        if (tab && field) {
            field.value = infotext(tab);
            field.dispatchEvent(new Event("input", { bubbles: true }));
            turn();
            // The field's new value is the server's after one turn of the page.
            window.setTimeout(() => press("merge-rec-find"), 100);
        }
    }

    function place() {
        const tab = document.getElementById("tab_pnginfo");
        const other = tab && tab.querySelector("#txt2img_tab");
        if (!other) {
            return;
        }
        let button = document.getElementById(ID);
        if (!button) {
            button = document.createElement("button");
            button.id = ID;
            button.type = "button";
            button.textContent = "Send to MergeLab";
            button.className = other.className;
            button.addEventListener("click", send);
            other.parentElement.appendChild(button);
        }
        const isOff = infotext(tab) === "";
        if (button.disabled !== isOff) {
            button.disabled = isOff;
            button.title = isOff ? "The picture says nothing of a MergeLab recipe" : "Open the picture's recipe";
        }
    }

    window.setInterval(() => {
        const tab = document.getElementById("tab_pnginfo");
        if (!document.hidden && tab && tab.offsetParent !== null) {
            place();
        }
    }, 500);
    window.mergeSend = { place, send, turn };
})();
