/* What stands in the WebUI's txt2img page now, under the names of its API.
 *
 * The page's own controls are read where they are; "" where there is no such page.
 */
(function () {
    "use strict";
    if (window.mergeTxt2img) {
        return;
    }

    const root = () =>
        typeof gradioApp === "function" ? gradioApp() : document;
    const part = (id, kind) => root().querySelector(`#${id} ${kind}`);

    function text(id) {
        const box = part(id, "textarea") || part(id, "input");
        return box ? box.value : null;
    }

    function number(id) {
        const box = part(id, "input[type=number]") || part(id, "input");
        const value = box && box.value !== "" ? Number(box.value) : Number.NaN;
        return Number.isFinite(value) ? value : null;
    }

    /* A list of one choice: Gradio shows what is chosen in its own input. */
    function choice(id) {
        const radio = part(id, "input[type=radio]:checked");
        return radio ? radio.value : text(id);
    }

    /* Where the hires pass is an accordion, its tick is in the accordion's heading. */
    function ticked(...ids) {
        return ids.some((id) => {
            const box = part(id, "input[type=checkbox]") || root().querySelector(`#${id}`);
            return Boolean(box && box.checked);
        });
    }

    function read() {
        if (!root().querySelector("#txt2img_prompt")) {
            return "";
        }
        const isHires = ticked("txt2img_hr-checkbox", "txt2img_enable_hr");
        const values = {
            prompt: text("txt2img_prompt"),
            negative_prompt: text("txt2img_neg_prompt"),
            steps: number("txt2img_steps"),
            sampler_name: choice("txt2img_sampling"),
            scheduler: choice("txt2img_scheduler"),
            cfg_scale: number("txt2img_cfg_scale"),
            width: number("txt2img_width"),
            height: number("txt2img_height"),
            seed: number("txt2img_seed"),
            batch_size: number("txt2img_batch_size"),
            n_iter: number("txt2img_batch_count"),
            enable_hr: isHires,
        };
        const hires = {
            hr_scale: number("txt2img_hr_scale"),
            hr_upscaler: choice("txt2img_hr_upscaler"),
            hr_second_pass_steps: number("txt2img_hires_steps"),
            denoising_strength: number("txt2img_denoising_strength"),
            hr_resize_x: number("txt2img_hr_resize_x"),
            hr_resize_y: number("txt2img_hr_resize_y"),
        };
        return JSON.stringify({ ...values, ...(isHires ? hires : {}) });
    }

    window.mergeTxt2img = read;
})();
